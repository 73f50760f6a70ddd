"""`table --statistics` and `bench statistics`, as a user drives them."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from miras_search.analysis.numbers import measured


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


FACTORIAL = """\
name: crossed
task: {name: mqar, vocab: 16, length: 16, pairs: 2}
model: {layers: 1, d_model: 8, heads: 1}
base: delta_net
vary: {bias: [l2, dot], retention: [none, l2]}
design: factorial
seeds: [11, 12, 13, 14, 15]
"""


def flat(text: str) -> str:
    """Without the breaks of lines."""
    return " ".join(text.split())


def test_a_factorial_tells_what_levels_do_over_all_of_it(cli, record) -> None:
    """Levels and interactions in text and JSON, and in the files of an export, from which they can be had again."""
    record(FACTORIAL)
    result = cli("table", "crossed", "--statistics")
    assert (result.code, result.err) == (0, "")
    base, told = "bias=l2 / retention=none", flat(result.out)
    assert f"Levels against those of {base}, over all cells of the other axes (paired by seed, n = 5; inter" in told
    assert "intervals for each alone by t; p: joint sign flips" in told
    assert f"a level changes beside another axis' level than beside that of {base} (paired by seed, n = 5" in told
    for words in ("bias = dot", "retention = l2", "retention = l2 x bias = dot"):
        assert f"\n  {words} " in result.out
    (found,) = cli("table", "crossed", "--statistics", "--json").json["statistics"]
    assert cli("export", "crossed", "-o", "out").code == 0
    jobs = pd.read_csv("out/data/jobs.csv").pivot(index="seed", columns="trial", values="accuracy.test")
    base, gate, bias, both = (jobs[number].to_numpy() for number in range(4))
    wanted = {"retention = l2": (gate + both - base - bias) / 2, "bias = dot": (bias + both - base - gate) / 2}
    crossed = both - bias - gate + base
    effects = pd.read_csv("out/data/effects.csv").set_index("effect")
    assert effects["kind"].to_dict() == {**dict.fromkeys(wanted, "level"), "retention = l2 x bias = dot": "interaction"}
    families = found["contrasts"]["mains"]["contrasts"] + found["contrasts"]["interactions"]["contrasts"]
    for one, d in zip(families, [*wanted.values(), crossed], strict=True):
        name = " x ".join(f"{axis} = {level}" for axis, level in one["levels"].items())
        assert one["differences"] == pytest.approx(d.tolist())
        assert effects.loc[name, "difference"] == pytest.approx(d.mean()) == one["difference"]
        assert effects.loc[name, "ci_low"] == one["ci_low"] < one["difference"] < one["ci_high"]
        assert (effects.loc[name, "n"], effects.loc[name, "p"]) == (5, one["p"])
    tex = Path("out/tables/effects.tex").read_text()
    assert tex.startswith(
        "% study crossed; task mqar; commit 0123456; command miras-search export crossed -o DIR; date "
    )
    assert "over all cells of the other axes" in tex
    assert r"\quad retention = l2 $\times$ bias = dot & " in tex and tex.count(r"\midrule") == 2
    assert tex.count("{") == tex.count("}")
    page = Path("out/report.html").read_text()
    shown = page.partition("What levels change")[2].partition("</table>")[0]
    rows = [re.findall("<td>([^<]*)</td>", row) for row in shown.split("<tr")]
    assert {row[0].replace("×", "x"): row[1] for row in rows if row} == {
        name: measured(*effects.loc[name, ["difference", "ci_low", "ci_high"]]) for name in effects.index
    }
    details = page.partition("Statistics beyond the table")[2].partition("</pre>")[0]
    assert flat(unescape(details.partition("<pre>")[2])) == flat(Path("out/tables/statistics.txt").read_text())


def test_a_fraction_says_what_its_effects_are_mixed_with(cli, record) -> None:
    record(FACTORIAL.replace("[none, l2]}", "[none, l2], model.conv: [4, 0]}").replace("factorial", "fractional"))
    mixed = "over a fraction of the factorial in which they are mixed with interactions of two other axes"
    out = flat(cli("table", "crossed", "--statistics").out)
    assert mixed in out and "Interactions" not in out and "all cells of the other axes" not in out
    assert cli("export", "crossed", "-o", "out").code == 0
    assert mixed in Path("out/tables/effects.tex").read_text() and mixed in Path("out/report.html").read_text()
    assert set(pd.read_csv("out/data/effects.csv")["cells"]) == {"mixed fraction"}


def test_looks_are_paid_for_by_levels_too(cli, record) -> None:
    record(FACTORIAL + "top_up: {max_seeds: 8, looks: 2}\n")
    (found,) = cli("table", "crossed", "--statistics", "--json").json["statistics"]
    assert (found["contrasts"]["look"], len(found["contrasts"]["seeds"])) == (5, 5)
    assert found["contrasts"]["mains"]["smallest"] == pytest.approx(2 * 2 / 2**5)
    told = flat(cli("table", "crossed", "--statistics").out)
    assert "times the error of all looks over that of this one, at 5 seeds; smallest p 0.12" in told
    other = cli("table", "crossed", "--statistics", "--metric", "loss", "--split", "train", "--json").json[
        "statistics"
    ][0]
    assert other["contrasts"]["look"] is None
    assert "Levels and their interactions: Seeds were added after looks at accuracy" in "".join(other["notes"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("[11, 12, 13, 14, 15]", "5"), "diverged in some seeds, and what they would have given is not known."),
        (("[11, 12, 13, 14, 15]", "[11]"), "they take two seeds that all cells completed."),
        (("[l2, dot]", "[kl, dot]"), "levels do not meet equally often"),
    ],
)
def test_a_factorial_without_effects_of_levels_says_why(cli, record, change: tuple[str, str], why: str) -> None:
    record(FACTORIAL.replace(*change))
    out = flat(cli("table", "crossed", "--statistics").out)
    assert "Nothing is said of levels and their interactions: " in out and why in out
    assert "Levels against" not in out


def test_no_factorial_no_contrasts(cli, stored: Path) -> None:
    out = cli("table", "small", "--statistics").out
    assert "Levels against" not in out and "Nothing is said of levels" not in out
    assert cli("export", "small", "-o", "out").code == 0
    assert not list(Path("out").rglob("effects.*"))
    assert "What levels change" not in Path("out/report.html").read_text()


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
