"""The contrasts of a factorial as a LaTeX table for a paper, and as a frame."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pandas as pd

from miras_search.analysis.contrasts import Contrast, Family
from miras_search.analysis.findings import Findings
from miras_search.analysis.numbers import measured, p_text
from miras_search.analysis.table import AblationTable
from miras_search.export.findings import contrasts_test
from miras_search.export.latex import comment, escape, prose
from miras_search.metrics import METRICS

TITLES = {
    "level": "Levels against the base's, over all cells of the other axes",
    "interaction": "Interactions: beside the other level, less beside the base's",
}


def to_latex(found: Sequence[Findings], tables: Sequence[AblationTable]) -> str:
    """A `table` environment for each task that has contrasts, led by its ablation table's comment; needs booktabs."""
    return "\n".join(_one(one, comment(table)) for one, table in zip(found, tables, strict=True) if one.contrasts)


def effects_frame(found: Sequence[Findings]) -> pd.DataFrame:
    """One line a contrast of each task: what it is, its levels, difference, interval, p, and the number of seeds."""
    lines = [
        [one.task, one.metric, one.split, kind, str(it), it.difference, it.ci_low, it.ci_high, it.p, it.p_holm, seeds]
        for one in found
        for kind, it, seeds in _each(one)
    ]
    names = ["task", "metric", "split", "kind", "effect", "difference", "ci_low", "ci_high", "p", "p_holm", "n"]
    types = dict.fromkeys(names[:5], "string") | dict.fromkeys(names[5:10], "float64") | {"n": "Int64"}
    return pd.DataFrame(lines, columns=names).astype(types)


def _families(found: Findings) -> dict[str, Family]:
    if found.contrasts is None:
        return {}
    families = {"level": found.contrasts.mains, "interaction": found.contrasts.interactions}
    return {kind: family for kind, family in families.items() if family.contrasts}


def _each(found: Findings) -> Iterator[tuple[str, Contrast, int]]:
    for kind, family in _families(found).items():
        for one in family.contrasts:
            yield kind, one, len(one.differences)


def _one(found: Findings, origin: str) -> str:
    families, metric = _families(found), METRICS[found.metric]
    better = "higher" if metric.direction == "maximize" else "lower"
    seeds = next(len(one.differences) for _, one, _ in _each(found))
    tests = ". ".join(f"{kind.capitalize()}s: {contrasts_test(it, seeds)}" for kind, it in families.items())
    caption = (
        f"Study {found.study}, task {found.task}: {found.metric} ({found.split}, {better} is better), what levels "
        f"change over the whole factorial, with 95 % intervals for each alone. {tests}."
    )
    lines = [
        origin,
        r"\begin{table}[t]",
        r"  \centering",
        r"  \footnotesize",
        rf"  \caption{{{prose(caption)}}}",
        rf"  \label{{tab:{re.sub(r'[^a-z0-9]+', '-', f'{found.study}-{found.task}-effects'.lower()).strip('-')}}}",
        r"  \par\smallskip",
        r"  \begin{tabular}{lrrr}",
        r"    \toprule",
        r"    Effect & $\Delta$, 95 \% & $p$ & $p_{\mathrm{Holm}}$ \\",
    ]
    for kind, family in families.items():
        lines += [r"    \midrule", rf"    \multicolumn{{4}}{{l}}{{\emph{{{escape(TITLES[kind])}}}}} \\"]
        for one in family.contrasts:
            name = r" $\times$ ".join(escape(f"{axis} = {level}") for axis, level in one.levels.items())
            texts = [measured(one.difference, one.ci_low, one.ci_high), p_text(one.p), p_text(one.p_holm)]
            lines.append("    " + " & ".join([rf"\quad {name}", *map(prose, texts)]) + r" \\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""])
