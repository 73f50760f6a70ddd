"""The contrasts of a factorial as a LaTeX table for a paper, as a piece of a page, and as a frame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape as escape_html

import pandas as pd

from miras_search.analysis.contrasts import Contrast, Contrasts, Family
from miras_search.analysis.findings import Findings
from miras_search.analysis.numbers import measured, p_text
from miras_search.analysis.table import AblationTable
from miras_search.export.findings import OVER, contrasts_test
from miras_search.export.html import wrapped
from miras_search.export.latex import comment, escape, prose
from miras_search.metrics import METRICS

TITLES = {
    "level": "Levels against the base's",
    "interaction": "Interactions: beside the other level, less beside the base's",
}


def to_latex(found: Sequence[Findings], tables: Sequence[AblationTable]) -> str:
    """A `table` environment for each task that has contrasts, led by a comment on their origin; needs booktabs."""
    tasks = zip(found, tables, strict=True)
    return "\n".join(
        _one(one, one.contrasts, comment(table, "export", "-o DIR")) for one, table in tasks if one.contrasts
    )


def to_html(found: Findings) -> str:
    """A table and the words under it, as the piece that a larger page takes; empty where there are no contrasts."""
    if (contrasts := found.contrasts) is None:
        return ""
    body = []
    for kind, family in _families(contrasts).items():
        body.append(f'<tr class="section"><td colspan="4">{escape_html(TITLES[kind])}</td></tr>')
        for one in family.contrasts:
            name = " × ".join(f"{axis} = {level}" for axis, level in one.levels.items())
            texts = map(escape_html, (name, *_numbers(one)))
            body.append('<tr class="row">' + "".join(f"<td>{text}</td>" for text in texts) + "</tr>")
    heads = "".join(f"<th>{text}</th>" for text in ("effect", "Δ, 95 %", "p", "p Holm"))
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return (
        wrapped(f'<div class="scroll">{table}</div>')
        + f'\n<p class="caption">{escape_html(_caption(found, contrasts))}</p>\n'
    )


def effects_frame(found: Sequence[Findings]) -> pd.DataFrame:
    """One line a contrast of each task: what it is, its levels, difference, interval, p, and the number of seeds.

    `cells` says over what: a factorial, a fraction, or a fraction that mixes it with interactions of two axes.
    """
    lines = [
        [*about, kind, str(it), it.difference, it.ci_low, it.ci_high, it.p, it.p_holm, len(it.differences), all_.of]
        for about, all_ in (((one.task, one.metric, one.split), one.contrasts) for one in found)
        if all_ is not None
        for kind, family in _families(all_).items()
        for it in family.contrasts
    ]
    names = [
        "task",
        "metric",
        "split",
        "kind",
        "effect",
        "difference",
        "ci_low",
        "ci_high",
        "p",
        "p_holm",
        "n",
        "cells",
    ]
    types = dict.fromkeys(names, "string") | dict.fromkeys(names[5:10], "float64") | {"n": "Int64"}
    return pd.DataFrame(lines, columns=names).astype(types)


def _families(found: Contrasts) -> dict[str, Family]:
    families = {"level": found.mains, "interaction": found.interactions}
    return {kind: family for kind, family in families.items() if family.contrasts}


def _one(found: Findings, contrasts: Contrasts, origin: str) -> str:
    lines = [
        origin,
        r"\begin{table}[t]",
        r"  \centering",
        r"  \footnotesize",
        rf"  \caption{{{prose(_caption(found, contrasts))}}}",
        rf"  \label{{tab:{re.sub(r'[^a-z0-9]+', '-', f'{found.study}-{found.task}-effects'.lower()).strip('-')}}}",
        r"  \par\smallskip",
        r"  \begin{tabular}{lrrr}",
        r"    \toprule",
        r"    Effect & $\Delta$, 95 \% & $p$ & $p_{\mathrm{Holm}}$ \\",
    ]
    for kind, family in _families(contrasts).items():
        lines += [r"    \midrule", rf"    \multicolumn{{4}}{{l}}{{\emph{{{escape(TITLES[kind])}}}}} \\"]
        for one in family.contrasts:
            name = r" $\times$ ".join(escape(f"{axis} = {level}") for axis, level in one.levels.items())
            lines.append("    " + " & ".join([rf"\quad {name}", *map(prose, _numbers(one))]) + r" \\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""])


def _numbers(one: Contrast) -> list[str]:
    return [measured(one.difference, one.ci_low, one.ci_high), p_text(one.p), p_text(one.p_holm)]


def _caption(found: Findings, contrasts: Contrasts) -> str:
    better = "higher" if METRICS[found.metric].direction == "maximize" else "lower"
    families = _families(contrasts).items()
    tests = ". ".join(f"{kind.capitalize()}s: {contrasts_test(it, contrasts)}" for kind, it in families)
    return (
        f"Study {found.study}, task {found.task}: {found.metric} ({found.split}, {better} is better), what levels "
        f"change against those of {contrasts.base} over {OVER[contrasts.of]}, with 95 % intervals. {tests}."
    )
