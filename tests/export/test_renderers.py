"""Every format on one small table: golden lines, escapes, full precision, several tasks, nothing finished."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from miras_search.analysis.table import AblationTable
from miras_search.export.csv_ import to_csv
from miras_search.export.formats import RENDERERS, SUFFIXES
from miras_search.export.html import to_html
from miras_search.export.json_ import to_json, to_plain
from miras_search.export.latex import escape as latex_escape
from miras_search.export.latex import to_latex
from miras_search.export.layout import columns
from miras_search.export.markdown import to_markdown
from miras_search.export.text import to_text

MARKDOWN_ROWS = """\
| cell | accuracy ↑ | n | diff | 95 % interval | p | p Holm | failed | diverged | params | state | tokens/s | peak memory |
| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| dot | <u>0.609 ± 0.020</u> | 8/8 | - | - | - | - | 0 | 0 | 12.3k | 4.00 KiB | 15.3k | 305 MiB |
| l2 & δ_1 | **0.813 ± 0.030** | 8/8 | +0.204‡ | [0.196, 0.213] | 0.008 | 0.008 | 0 | 0 | 12.3k | 4.00 KiB | 15.3k | 305 MiB |
| lp\\|1.5 | 0.705 ± 0.011 | 7/8 | +0.095 | [0.085, 0.105] | - | - | 0 | 1 | 12.3k | 4.00 KiB | 15.3k | 305 MiB |
| no_write (control) | 0.052 ± 0.004 | 8/8 | -0.557‡ | [-0.571, -0.543] | 0.008 | 0.008 | 0 | 0 | 12.3k | 4.00 KiB | 15.3k | 305 MiB |
"""  # noqa: E501 - rows as they are printed

LATEX_BODY = r"""
  \begin{tabular}{lrrrrrr}
    \toprule
    Cell & accuracy $\uparrow$ & $\Delta$ & 95 \% interval & $p$ & $p_{\mathrm{Holm}}$ & n \\
    \midrule
    dot & \underline{0.609 $\pm$ 0.020} & -- & -- & -- & -- & 8/8 \\
    l2 \& $\delta$\_1 & \textbf{0.813 $\pm$ 0.030} & +0.204$^{\ddagger}$ & [0.196, 0.213] & 0.008 & 0.008 & 8/8 \\
    lp$|$1.5 & 0.705 $\pm$ 0.011 & +0.095 & [0.085, 0.105] & -- & -- & 7/8 \\
    \midrule
    \multicolumn{7}{l}{\emph{negative controls}} \\
    \quad no\_write & 0.052 $\pm$ 0.004 & $-$0.557$^{\ddagger}$ & [$-$0.571, $-$0.543] & 0.008 & 0.008 & 8/8 \\
    \bottomrule
  \end{tabular}
  \par\medskip
  \begin{tabular}{lrr}
    \toprule
    Cell & tokens/s & peak memory \\
    \midrule
    dot & 15.3k & 305 MiB \\
"""

SIUNITX_ROWS = r"""
    dot & {\underline{0.609}} & 0.020 & {--} & -- & -- & -- & 8/8 \\
    l2 \& $\delta$\_1 & \bfseries 0.813 & 0.030 & +0.204{$^{\ddagger}$} & [0.196, 0.213] & 0.008 & 0.008 & 8/8 \\
"""

TEXT_ROWS = """\
cell         accuracy ↑     n    diff      95 % interval      p  p Holm  failed  diverged
-----------------------------------------------------------------------------------------
dot       0.609 ± 0.020'  8/8       -                  -      -       -       0         0
l2 & δ_1  0.813 ± 0.030*  8/8  +0.204‡    [0.196, 0.213]  0.008   0.008       0         0
lp|1.5    0.705 ± 0.011   7/8  +0.095     [0.085, 0.105]      -       -       0         1
controls --------------------------------------------------------------------------------
no_write  0.052 ± 0.004   8/8  -0.557‡  [-0.571, -0.543]  0.008   0.008       0         0
"""

PROMISED = [
    *("cell", "changes", "role", "mean", "sd", "n", "of", "difference", "ci_low", "ci_high", "p", "p_holm"),
    *("params", "state_bytes", "tokens_per_second", "peak_memory_bytes", "failed", "diverged", "verdict"),
]


def _split_row(line: str) -> list[str]:
    return [text.strip() for text in line.replace(r"\|", " ").strip("|\n ").split("|")]


def test_markdown(table: AblationTable) -> None:
    text = to_markdown(table)
    assert MARKDOWN_ROWS in text
    assert text.startswith("Study bias, task recall: accuracy")
    assert "- l2 & δ_1 \\> dot: +0.204 [0.196, 0.213], decided\n" in text
    assert len({len(_split_row(line)) for line in text.splitlines() if line.startswith("|")}) == 1


def test_latex(table: AblationTable) -> None:
    text = to_latex(table)
    assert text.splitlines()[0] == (
        "% study bias; task recall; commit abc1234; command miras-search table bias --format latex; "
        "date 2026-01-02; n 7 to 8"
    )
    assert LATEX_BODY in text
    assert r"\label{tab:bias-recall-accuracy}" in text
    assert "Every cell has 12.3k parameters. The state takes 4.00 KiB in every cell." in text
    assert r"lp$|$1.5: diverged in 1 of 8 seeds, so no test and no mark" in text
    assert "worst attained value of the study (0.046)" in text


def test_latex_with_siunitx(table: AblationTable) -> None:
    text = to_latex(table, siunitx=True)
    assert SIUNITX_ROWS in text
    assert r"S[table-format=1.3, detect-weight, mode=text]@{${}\pm{}$}S[table-format=1.3]" in text
    assert r"\multicolumn{2}{c}{accuracy $\uparrow$} & {$\Delta$}" in text


@pytest.mark.parametrize("siunitx", [False, True])
def test_latex_has_balanced_braces_and_equally_many_cells(table: AblationTable, siunitx: bool) -> None:
    lines = to_latex(table, siunitx=siunitx).splitlines()[1:]
    bare = "\n".join(lines).replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    rows = [line.replace(r"\&", "") for line in lines if line.endswith(r"\\") and "emph" not in line]
    comparison, costs = rows[:5], rows[5:]
    for block in (comparison, costs):
        assert len({row.count("&") + row.count(r"\multicolumn{2}") for row in block}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % of a_b & c#d", r"50 \% of a\_b \& c\#d"),
        ("{x}$^~\\", r"\{x\}\$\textasciicircum{}\textasciitilde{}\textbackslash{}"),
        ("p < 1, q > 2 ±", r"p $<$ 1, q $>$ 2 $\pm$"),
        ("δ ≥ λ", r"$\delta$ $\geq$ $\lambda$"),
        ("two\nlines % here", r"two lines \% here"),
    ],
)
def test_latex_escapes(text: str, expected: str) -> None:
    assert latex_escape(text) == expected


def test_a_comment_stays_on_one_line(table: AblationTable) -> None:
    context = replace(table.context, command="a\nb")
    assert to_latex(replace(table, context=context)).splitlines()[1] == r"\begin{table}[t]"


def test_a_leading_bracket_is_not_an_option_of_the_row_end(table: AblationTable) -> None:
    rows = (table.rows[0], replace(table.rows[1], cell="[2, 4]"))
    assert "    {}[2, 4] & " in to_latex(replace(table, rows=rows))


def test_a_date_and_a_name_keep_their_hyphens(table: AblationTable) -> None:
    rows = (table.rows[0], replace(table.rows[1], cell="lr 1e-3"))
    text = to_latex(replace(table, rows=rows))
    assert "2026-01-02" in text
    assert "lr 1e-3" in text


def test_text(table: AblationTable) -> None:
    text = to_text(table)
    assert TEXT_ROWS in text
    assert max(map(len, text.splitlines())) <= 120
    assert "  l2 & δ_1 > dot: +0.204 [0.196, 0.213], decided\n" in text
    assert "*: best, ': second best" in text
    assert "\x1b" not in text


def test_wide_text_is_one_block(table: AblationTable) -> None:
    headers = [line for line in to_text(table, width=160).splitlines() if line.startswith("cell ")]
    assert len(headers) == 1
    assert headers[0].split()[-4:] == ["state", "tokens/s", "peak", "memory"]
    assert len([line for line in to_text(table, width=100).splitlines() if line.startswith("cell ")]) == 2


def test_csv_keeps_full_precision(table: AblationTable) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [line["cell"] for line in lines] == [row.cell for row in table.rows]
    for line, row in zip(lines, table.rows, strict=True):
        for name in ("mean", "sd", "difference", "ci_low", "ci_high", "p", "p_holm", "tokens_per_second"):
            value = getattr(row, name)
            assert line[name] == ("" if value is None else repr(value))
        assert json.loads(line["changes"]) == row.changes
        assert line["best"] == ("true" if row.best else "false")
    assert lines[0]["verdict"] == ""
    assert lines[1]["params"] == "12345"


def test_csv_of_several_tasks_has_one_header(two_tasks: list[AblationTable]) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(two_tasks))))
    assert [(line["task"], line["metric"]) for line in lines] == [("recall", "accuracy")] * 4 + [("text", "loss")] * 4


def test_json_has_the_promised_form(table: AblationTable) -> None:
    document = json.loads(to_json(table))
    assert list(document)[:5] == ["study", "metric", "base", "caption", "rows"]
    assert (document["study"], document["metric"], document["base"]) == ("bias", "accuracy", "dot")
    for row in document["rows"]:
        assert list(row)[: len(PROMISED)] == PROMISED
    base, best, broken, control = document["rows"]
    assert (base["difference"], base["p"], base["verdict"]) == (None, None, None)
    assert best["difference"] == table.rows[1].difference
    assert best["changes"] == {"bias": "l2 & δ_1"}
    assert (broken["diverged"], broken["n"], broken["p"]) == (1, 7, None)
    assert control["role"] == "control"


def test_json_of_several_tasks(two_tasks: list[AblationTable]) -> None:
    document = json.loads(to_json(two_tasks))
    assert list(document) == ["study", "tasks"]
    assert [table["task"] for table in document["tasks"]] == ["recall", "text"]
    assert to_plain(two_tasks[:1]) == to_plain(two_tasks[0])
    assert to_plain([]) == {"study": None, "tasks": []}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_json_never_holds_a_number_that_is_none(table: AblationTable, bad: float) -> None:
    odd = replace(table, rows=(replace(table.rows[0], tokens_per_second=bad),))

    def refuse(text: str) -> float:
        raise AssertionError(text)

    document = json.loads(to_json(odd), parse_constant=refuse)
    assert document["rows"][0]["tokens_per_second"] is None


@pytest.mark.parametrize("name", RENDERERS)
def test_every_format_takes_one_or_several(
    name: str, table: AblationTable, two_tasks: Sequence[AblationTable], empty_table: AblationTable
) -> None:
    render = RENDERERS[name]
    for text in (render(table), render(two_tasks), render(empty_table)):
        assert text.endswith("\n")
        assert not re.search(r"\bnan\b", text, re.I)
        assert not re.search(r"\bNone\b", text)
    several = render(two_tasks)
    assert "text" in several
    assert "loss" in several
    assert render(table) == render([table])


def test_the_formats_have_their_suffixes() -> None:
    assert set(RENDERERS) == set(SUFFIXES) == {"text", "markdown", "latex", "html", "csv", "json"}


def test_a_metric_that_falls_has_its_arrow(two_tasks: list[AblationTable]) -> None:
    assert "| loss (nats) ↓ |" in to_markdown(two_tasks[1])
    assert r"loss (nats) $\downarrow$" in to_latex(two_tasks[1])


def test_censored_rows_carry_their_sign(table: AblationTable) -> None:
    rows = (table.rows[0], replace(table.rows[1], censored=True, mark=""))
    odd = replace(table, rows=rows)
    assert "+0.204§" in to_markdown(odd)
    assert "+0.204§" in to_text(odd)
    assert "§ censored" in to_text(odd)
    assert r"+0.204$^{\S}$" in to_latex(odd)


@pytest.mark.parametrize("render", [to_markdown, to_html, to_latex, to_text])
def test_what_was_chosen_and_matched_for_a_row_stands_in_it(
    table: AblationTable, render: Callable[[AblationTable], str]
) -> None:
    row = replace(table.rows[1], tuned={"train.lr": "0.0375"}, at_edge={"train.lr": "last"}, ratio=1.017)
    text = render(replace(table, rows=(table.rows[0], row), matched="params"))
    for shown in ("lr", "0.0375 (last)", "1.017"):
        assert shown in text


def test_a_page_has_every_column(table: AblationTable) -> None:
    row = replace(
        table.rows[1],
        tuned={"train.lr": "0.04"},
        ratio=1.0,
        flops_per_token=1e3,
        survives={"no_write": "yes"},
        under={"no_write": {}},
    )
    full = replace(table, rows=(table.rows[0], row), matched="params")
    heads = to_html(full).partition("</thead>")[0].rpartition("<tr>")[2].count("<th>")
    assert heads == 1 + len(columns(full))


def test_tasks_beside_each_other_say_where_the_rest_is(two_tasks: list[AblationTable]) -> None:
    assert "The intervals are in the tables of the single tasks." in to_latex(two_tasks, side_by_side=True)
    first = replace(two_tasks[0], rows=tuple(replace(row, tuned={"train.lr": "0.04"}) for row in two_tasks[0].rows))
    said = to_latex([first, two_tasks[1]], side_by_side=True)
    assert "The intervals, and what was chosen for each row, are in the tables of the single tasks." in said
