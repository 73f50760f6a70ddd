"""Rows under their axis, tasks side by side, HTML as a page by itself, and LaTeX set by a real TeX."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from miras_search.analysis.table import AblationTable
from miras_search.export.html import table_html, to_html
from miras_search.export.latex import to_latex
from miras_search.export.sections import joint_caption, joint_notes, sections, varied

AXES = {"l2 & δ_1": {"bias": "l2"}, "lp|1.5": {"train.lr": "0.01"}}


@pytest.fixture
def axes(table: AblationTable) -> AblationTable:
    """The cells change two different things."""
    return replace(table, rows=tuple(replace(row, changes=AXES.get(row.cell, row.changes)) for row in table.rows))


@pytest.fixture
def alike(table: AblationTable) -> list[AblationTable]:
    """Two tasks with the same metric; on the second one a cell is missing."""
    other = replace(table, task="mqar", caption=table.caption.replace("task recall", "task mqar"), rows=table.rows[:2])
    return [table, other]


class Page(HTMLParser):
    """The tags in force, the cells of each row, and every address that a page names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag in ("meta", "link"):
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1] += [""] * int(dict(attrs).get("colspan") or 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_rows_stand_under_what_they_change_and_controls_apart(axes: AblationTable) -> None:
    found = [(section.title, [row.cell for row in section.rows]) for section in sections(axes)]
    assert found == [
        ("", ["dot"]), ("bias", ["l2 & δ_1"]), ("train.lr", ["lp|1.5"]), ("negative controls", ["no_write"]),
    ]  # fmt: skip
    assert r"\emph{train.lr}" in to_latex(axes)
    assert '<tr class="section"><td colspan="13">train.lr</td></tr>' in table_html([axes])


def test_one_axis_needs_no_heading(table: AblationTable) -> None:
    assert [section.title for section in sections(table)] == ["", "negative controls"]


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"bias.delta": "0.5", "bias": "huber"}, "bias"),
        ({"bias": "l2", "retention": "kl"}, "bias × retention"),
        ({"preset": "gla", "train.lr": "0.02"}, "preset"),
        ({"model.conv": "0"}, "model.conv"),
    ],
)
def test_the_heading_names_the_axis(table: AblationTable, changes: dict[str, str], title: str) -> None:
    assert varied(replace(table.rows[1], changes=changes)) == title


def test_a_control_that_is_the_reference_stays_on_top(table: AblationTable) -> None:
    rows = (table.rows[3], *table.rows[:3])
    found = sections(replace(table, base="no_write", rows=rows))
    assert [[row.cell for row in section.rows] for section in found] == [[row.cell for row in rows]]


@pytest.mark.parametrize("render", [to_latex, to_html])
def test_tasks_side_by_side_have_a_row_a_cell(render: object, alike: Sequence[AblationTable]) -> None:
    assert callable(render)
    text = render(alike, side_by_side=True)
    assert len(re.findall(r"lp(\$\||\|)", text.split("</table>")[0].split(r"\end{tabular}")[0])) == 1
    assert "tasks recall, mqar" in text.replace("\n", " ")


def test_side_by_side_keeps_the_marks_and_dashes_what_a_task_has_not(alike: Sequence[AblationTable]) -> None:
    text = to_latex(alike, side_by_side=True)
    assert r" & \multicolumn{2}{c}{recall} & \multicolumn{2}{c}{mqar} \\" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in text
    assert text.count(r"\textbf{0.813 $\pm$ 0.030} & +0.204$^{\ddagger}$") == 2
    assert r"lp$|$1.5 & 0.705 $\pm$ 0.011 & +0.095 & {--} & {--} \\" in text
    assert r"\label{tab:bias-recall-mqar-accuracy}" in text


def test_captions_and_notes_of_tasks_say_what_is_shared_once(
    alike: Sequence[AblationTable], two_tasks: Sequence[AblationTable]
) -> None:
    assert joint_caption(alike).startswith("Study bias, tasks recall, mqar: accuracy (test")
    assert joint_caption(alike).count("accuracy") == 1
    assert joint_caption(two_tasks).startswith("Study bias, tasks recall, text. recall: accuracy")
    assert " text: loss" in joint_caption(two_tasks)
    assert joint_notes(alike) == list(alike[0].notes)
    assert len(joint_notes(two_tasks)) > len(two_tasks[0].notes)


def test_html_is_a_whole_page_that_names_no_other(table: AblationTable, two_tasks: Sequence[AblationTable]) -> None:
    page = Page(to_html(table))
    assert page.open == []
    assert page.addresses == []
    assert {len(row) for row in page.rows} == {13}
    assert page.rows[3][:2] == ["l2 & δ_1", "0.813 ± 0.030"]
    assert "default-src 'none'" in to_html(table)
    assert len(Page(to_html(two_tasks)).rows) == 2 * len(page.rows)


def test_html_links_and_marks(table: AblationTable) -> None:
    text = table_html([table], lambda cell: "trial?x=1&y=2" if cell == "dot" else None)
    assert '<a href="trial?x=1&amp;y=2" target="_self">dot</a> <span class="tag">base</span>' in text
    assert "<td><b>0.813 ± 0.030</b></td>" in text
    assert "+0.204<sup>‡</sup>" in text
    assert '<td class="bad">1</td>' in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_a_real_tex_sets_it_without_a_complaint(
    axes: AblationTable, alike: Sequence[AblationTable], empty_table: AblationTable, tmp_path: Path
) -> None:
    assert shutil.which("kpsewhich") is not None
    found = subprocess.run(["kpsewhich", "booktabs.sty", "siunitx.sty"], capture_output=True, text=True, check=False)
    if len(found.stdout.split()) < 2:
        pytest.skip("booktabs and siunitx are not installed")
    odd = replace(axes, rows=(axes.rows[0], replace(axes.rows[1], cell="[2, 4] * ~^\\ #{}", censored=True)))
    tables = [axes, odd, empty_table]
    text = to_latex(tables) + to_latex(tables, siunitx=True)
    text += to_latex(alike, side_by_side=True) + to_latex(alike, siunitx=True, side_by_side=True)
    text = re.sub(r"\\label\{.*\}", "", text)  # the same tables twice
    document = (
        "\\documentclass{article}\n\\usepackage{booktabs,siunitx}\n\\begin{document}\n" + text + "\\end{document}\n"
    )
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    complaints = [line for line in done.stdout.splitlines() if "Warning" in line or line.startswith("Overfull")]
    assert complaints == []
    assert (tmp_path / "t.pdf").stat().st_size > 10_000
