"""The study of a stored trial's neighbours, as text that `run` takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from miras_search.commands.common import inline, mapping
from miras_search.errors import MirasError

if TYPE_CHECKING:
    from miras_search.store.types import StudyRow, TrialRow


def neighbour_study(study: StudyRow, trial: TrialRow, axes: Sequence[str]) -> str:
    """A study file whose base is the trial and whose cells are its neighbours along the axes.

    Raises MirasError for an unknown axis, a design that this version does not read, and one without neighbours.
    """
    from miras_search.models.config import ModelConfig
    from miras_search.space import plugins
    from miras_search.space.design import DesignPoint
    from miras_search.space.fields import SpecError, build
    from miras_search.study.neighbours import neighbours

    settings = trial.settings
    names = list(mapping(study.config.get("plugins")))
    try:
        plugins.use(plugins.find(names, Path()))
        point = DesignPoint.parse(trial.design)
        found = neighbours(point, build(ModelConfig, mapping(settings["model"]), ("model",)), axes)
    except SpecError as error:
        raise MirasError(f"{study.name}, trial {trial.number}: {error.problems[0]}") from error
    if not found.levels:
        raise MirasError(f"{study.name}, trial {trial.number}: no other option of {', '.join(axes)} fits it")
    keys: dict[str, object] = {
        "name": f"{study.name}-{trial.number}-neighbours",
        "question": json.dumps(f"What does one step away from {trial.cell} of {study.name} change?"),
        **({"plugins": names} if names else {}),
        "task": list(mapping(settings["tasks"]).values()),
        "model": settings["model"],
        "train": settings["train"],
        "resources": study.config["resources"],
        "base": _Block(trial.design),
        "vary": _Block(found.levels),
        "seeds": study.config["seeds"],
        "metric": study.metric,
    }
    lines = [line for key, value in keys.items() for line in _lines(key, value)]
    lines += [f"# refused: {axis}={name}: {reason}" for (axis, name), reason in found.refused.items()]
    return "\n".join(lines) + "\n"


class _Block(dict[str, object]):
    """A mapping that is written a line a key."""


def _lines(key: str, value: object) -> list[str]:
    if isinstance(value, _Block):
        return [f"{key}:", *(f"  {inner}: {inline(item)}" for inner, item in value.items())]
    return [f"{key}: {value if isinstance(value, str) else inline(value)}"]
