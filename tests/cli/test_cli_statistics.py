"""`table --statistics` and `bench statistics`, as a user drives them."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_table_prints_the_statistics_below_the_table(cli, stored: Path) -> None:
    alone, more = cli("table", "small"), cli("table", "small", "--statistics")
    assert (more.code, more.err) == (0, "")
    assert more.out.startswith(alone.out)
    for words in ("Effects", "Nobody beats in", "What becomes of trainings without a number"):
        assert words in more.out[len(alone.out) :]


def test_table_json_has_the_statistics_beside_the_promised_keys(cli, stored: Path) -> None:
    document = cli("table", "small", "--statistics", "--margin", "0.5", "--solved", "0.3", "--json").json
    assert list(document)[:5] == ["study", "metric", "base", "caption", "rows"]
    (found,) = document["statistics"]
    assert (found["margin"], found["limit"]) == (0.5, 0.3)
    assert [one["cell"] for one in found["cells"]] == ["dot", "value_shift", "l2 + no_write"]
    assert document["ranks"] is None


def test_statistics_go_to_a_file(cli, stored: Path) -> None:
    result = cli("table", "small", "--statistics", "-o", "s.txt")
    assert (result.code, result.out) == (0, "")
    assert "Effects" in Path("s.txt").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--margin", "0.1"), "belongs to --statistics"),
        (("--solved", "0.1"), "belongs to --statistics"),
        (("--statistics", "--margin", "0"), "a margin is positive"),
        (("--statistics", "-f", "latex"), "text or json"),
    ],
)
def test_options_that_do_not_fit_are_refused(cli, stored: Path, words: tuple[str, ...], said: str) -> None:
    result = cli("table", "small", *words)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.count("\n") == 1


def test_bench_statistics(cli) -> None:
    result = cli("bench", "statistics", "--studies", "1", "--json")
    assert result.code == 0, result.err
    assert {"family", "coverage", "power"} <= set(result.json)
