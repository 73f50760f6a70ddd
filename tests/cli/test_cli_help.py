"""Help and documentation: every verb and every flag is told in both, and importing the command line costs little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from miras_search.cli import app

DOCS = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
HEAVY = ("torch", "ray", "streamlit", "pandas", "optuna", "sqlalchemy", "triton", "scipy", "matplotlib")
VERBS = {
    "run",
    "check",
    "plan",
    "calibrate",
    "seeds",
    "eval",
    "status",
    "show",
    "table",
    "export",
    "space",
    "dashboard",
    "doctor",
    "bench training",
    "bench kernels",
    "bench statistics",
    "bench engine",
    "bench store",
    "db upgrade",
    "db backup",
    "db remove",
}


def verbs() -> dict[str, list[str]]:
    """Every verb with its flags, found in the program itself."""
    found: dict[str, list[str]] = {}

    def walk(command: object, words: tuple[str, ...]) -> None:
        inner = getattr(command, "commands", None)
        if inner is None:
            flags = [flag for parameter in command.params for flag in parameter.opts if flag.startswith("-")]
            found[" ".join(words)] = flags
            return
        for name, one in inner.items():
            walk(one, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


def section(verb: str) -> str:
    """What the documentation says of a verb: its heading up to the next."""
    text = DOCS.read_text()
    parts = [part for part in text.split("\n## ")[1:] if part.startswith(f"`miras-search {verb}")]
    assert len(parts) == 1, f"docs/cli.md needs one section that begins with `miras-search {verb}"
    return parts[0]


def test_these_are_the_verbs() -> None:
    assert set(verbs()) == VERBS


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_each_verb_has_help_for_itself_and_each_of_its_flags(verb: str, cli) -> None:
    result = cli(*verb.split(), "--help")
    assert result.code == 0
    assert result.err == ""
    for flag in verbs()[verb]:
        assert flag in result.out
    for parameter in _parameters(verb):
        assert parameter.help, f"{verb}: {parameter.name} has no help"


def _parameters(verb: str) -> list[object]:
    command: object = typer.main.get_command(app)
    for word in verb.split():
        command = command.commands[word]
    return [p for p in command.params if p.name != "help"]


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_the_documentation_names_each_flag_of_the_verb(verb: str) -> None:
    said = section(verb)
    missing = [flag for flag in verbs()[verb] if f"`{flag}" not in said]
    assert not missing


def test_the_documentation_names_no_flag_that_a_verb_does_not_have() -> None:
    for verb, flags in verbs().items():
        lines = [line for line in section(verb).splitlines() if line.startswith("| `-")]
        for line in lines:
            for word in line.split("|")[1].replace("`", " ").replace(",", " ").split():
                assert not word.startswith("-") or word in flags, f"{verb}: {word}"


def test_importing_the_command_line_and_its_help_load_nothing_heavy() -> None:
    program = f"""
import sys
from miras_search.cli import main
assert main(["run", "--help"]) == 0
found = [name for name in {HEAVY!r} if name in sys.modules]
sys.exit(f"loaded: {{found}}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_closed_output_is_no_error(here: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m miras_search.cli space --tasks >&-"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_version(cli) -> None:
    from miras_search import __version__

    assert cli("--version").out == f"miras-search {__version__}\n"


def test_wrong_usage_is_exit_2_and_one_line_on_stderr(cli) -> None:
    result = cli("tabel")
    assert (result.code, result.out) == (2, "")
    assert "No such command 'tabel'" in result.err
    assert "Traceback" not in result.err
    assert cli("run").code == 2
    for words in (("run", "x.yaml", "--executor", "cloud"), ("run", "x.yaml", "--workers", "0"), ("tabel",)):
        result = cli(*words)
        assert result.code == 2 and result.err.count("\n") == 1
        assert words[-1] in result.err and result.err.endswith(" --help\n")
