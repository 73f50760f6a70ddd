"""`check --mixer`: a layer of the user's own, tried against the contract that a study relies on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import typer

from miras_search.commands.common import emit, grid, say
from miras_search.errors import EnvironmentProblem, MirasError


def check_layer(path: str, args: str | None, d_model: int, *, as_json: bool) -> None:
    """Print a line a property. Exits with 1 where one does not hold; raises MirasError where there is no such layer.

    A module in the working directory is taken as a study beside it would take it: as a plugin.
    """
    from miras_search.models.config import ModelConfig
    from miras_search.space import plugins
    from miras_search.space.own_mixer import OwnMixer

    module = path.rpartition(".")[0]
    beside = [module] if module and Path(f"{module}.py").is_file() else []
    plugins.use(plugins.find(beside, Path()))
    mixer = OwnMixer.from_plain({"module": path, "args": _arguments(args)}, ("--mixer",))
    try:
        from miras_search.models.contract import examine
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise EnvironmentProblem("check --mixer: torch is not installed: pip install torch") from None
    found = examine(mixer, ModelConfig(d_model=d_model, heads=2 if d_model % 2 == 0 else 1))
    if as_json:
        emit(
            {
                "mixer": mixer.to_plain(),
                "d_model": d_model,
                "ok": found.ok,
                "parameters": found.parameters,
                "state_bytes": found.state_bytes,
                "properties": found.properties,
            }
        )
    else:
        rows = [["ok" if one.ok else "FAILED", one.name, one.found] for one in found.properties]
        if found.parameters is not None:
            state = "-" if found.state_bytes is None else f"{found.state_bytes:,}"
            rows.append(["", "costs", f"{found.parameters:,} parameters, {state} bytes of state a sequence"])
        say(f"{found.mixer} (source {found.digest})\n{grid(rows, indent='  ')}")
    if not found.ok:
        raise typer.Exit(1)


def _arguments(text: str | None) -> object:
    """The arguments as plain data. Raises MirasError for what is not a JSON object."""
    try:
        found = json.loads(text) if text is not None else {}
    except json.JSONDecodeError as error:
        raise MirasError(f"--args: not JSON: {error.msg} at character {error.pos}: write '{{\"width\": 4}}'") from error
    if not isinstance(found, Mapping):
        raise MirasError(f"--args: expected an object of arguments, as in '{{\"width\": 4}}', got {text}")
    return found
