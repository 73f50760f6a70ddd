"""A plugin's options are told from its text, and nothing of it runs."""

from __future__ import annotations

from miras_search.space.plugin_text import Told, told

SOURCE = """\
import nowhere
from typing import ClassVar

raise SystemExit("this must not run")


@BIAS.register
class Welsch:
    \"\"\"The farther off, the less.

    More words.
    \"\"\"

    name = "welsch"
    equation: ClassVar[str] = (
        "u = r "
        "exp(-|r|^2)"
    )


class Plain:
    name: str
    equation = made()


class Task:
    name = "first_token"
    summary = "Tell the first token."
"""


def run(**sources: str) -> dict[str, object]:
    return {
        "plugins": {name: {"path": f"{name}.py", "hash": "0", "source": source} for name, source in sources.items()}
    }


def test_options_are_told_by_name() -> None:
    expected = Told("u = r exp(-|r|^2)", "The farther off, the less.")
    assert told([{}, run(my_bias=SOURCE)]) == {"welsch": expected}


def test_the_newest_text_is_the_one() -> None:
    newer = SOURCE.replace("The farther", "The further")
    assert told([run(my_bias=SOURCE), run(my_bias=newer)])["welsch"].summary == "The further off, the less."


def test_what_is_no_python_here_tells_nothing() -> None:
    assert told([run(odd="class (")]) == {}
