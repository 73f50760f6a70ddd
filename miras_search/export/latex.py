"""Tables as LaTeX for a paper: booktabs rules, the base first, the controls under a rule of their own.

By default only the package booktabs is needed. With `siunitx` the means and differences go into S columns that align
on the decimal point; best and second are then marked inside the number column, which needs siunitx 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from miras_search.analysis.numbers import NOTHING, fixed
from miras_search.analysis.table import AblationTable, Row
from miras_search.export.layout import Column, Tables, as_tables, columns, flag

_LETTERS = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"
_LETTER_NAMES = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu"),
    *("xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
    *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"),
)
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MIDDLE DOT}": r"$\cdot$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{UPWARDS ARROW}": r"$\uparrow$",
    "\N{DOWNWARDS ARROW}": r"$\downarrow$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{INFINITY}": r"$\infty$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "§": r"\S{}",
    **{letter: rf"$\{name}$" for letter, name in zip(_LETTERS, _LETTER_NAMES, strict=True)},
}
_ESCAPES = str.maketrans(_SPECIAL)
_MARKS = {"": "", "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$", "§": r"$^{\S}$"}
_NEGATIVE = re.compile(r"(?<![\w.])-(?=\d)")  # a hyphen before a digit that starts a number

_SHOWN = (
    "mean",
    "tuned",
    "difference",
    "interval",
    "p",
    "p_holm",
    "survives",
    "ratio",
    "n",
    "params",
    "state_bytes",
    "tokens_per_second",
    "peak_memory_bytes",
)


def to_latex(tables: Tables, siunitx: bool = False) -> str:
    """Each table as a `table` environment, led by a comment that says where it comes from."""
    return "\n".join(_one(table, siunitx) for table in as_tables(tables))


def escape(text: str) -> str:
    """Text that LaTeX sets as it is, on one line; signs and Greek letters as mathematics."""
    return " ".join(text.split()).translate(_ESCAPES)


def _one(table: AblationTable, siunitx: bool) -> str:
    known = {column.key: column for column in columns(table)}
    shown = [known[key] for key in _SHOWN if key in known]
    lines = [
        _comment(table),
        r"\begin{table}[t]",
        r"  \centering",
        r"  \small",
        rf"  \caption{{{_prose(table.caption)}}}",
        rf"  \label{{tab:{_slug(table)}}}",
        rf"  \begin{{tabular}}{{{_specification(table, shown, siunitx)}}}",
        r"    \toprule",
        f"    {_header(shown, siunitx)}",
    ]
    write = _aligned if siunitx else _plain
    for rows in _groups(table):
        if rows:
            lines.append(r"    \midrule")
            lines += [f"    {_line([_name(row), *write(table, row, shown)])}" for row in rows]
    lines += [
        r"    \bottomrule",
        r"  \end{tabular}",
        rf"  \par\smallskip\footnotesize {_prose(' '.join([table.legend, *table.notes]))}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _groups(table: AblationTable) -> tuple[list[Row], list[Row]]:
    """The reference and the cells, then the controls; a control that is the reference stays on top."""
    controls = [row for row in table.rows if row.role == "control" and row.cell != table.base]
    return [row for row in table.rows if row not in controls], controls


def _comment(table: AblationTable) -> str:
    """One line: study, commit, command, date, n."""
    context = table.context
    counts = sorted({row.n for row in table.rows})
    parts = [
        f"study {table.study}",
        f"task {table.task}",
        f"commit {context.commit or 'unknown'}",
        f"command {context.command or 'unknown'}",
        f"date {context.date or 'unknown'}",
        f"n {counts[0]} to {counts[-1]}" if len(counts) > 1 else f"n {counts[0]}",
    ]
    return "% " + " ".join("; ".join(parts).split())


def _slug(table: AblationTable) -> str:
    text = f"{table.study}-{table.task}-{table.metric}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _specification(table: AblationTable, shown: Sequence[Column], siunitx: bool) -> str:
    """The alignment of every column; S columns hold as many digits as the widest number has."""
    if not siunitx:
        return "l" + "r" * len(shown)
    mean = _digits(table, [row.mean for row in table.rows])
    sd = _digits(table, [row.sd for row in table.rows])
    difference = _digits(table, [row.difference for row in table.rows]).lstrip("-")
    options = rf"table-format=+{difference}, retain-explicit-plus, table-space-text-post={{$^{{\ddagger}}$}}"
    s_columns = {
        "mean": rf"S[table-format={mean}, detect-weight, mode=text]@{{${{}}\pm{{}}$}}S[table-format={sd}]",
        "difference": f"S[{options}]",
    }
    return "l" + "".join(s_columns.get(column.key, "r") for column in shown)


def _digits(table: AblationTable, values: Sequence[float | None]) -> str:
    """The table-format of numbers with the table's decimals, as in -1.3."""
    known = [value for value in values if value is not None]
    whole = max((len(fixed(abs(value), 0)) for value in known), default=1)
    sign = "-" if any(value < 0 for value in known) else ""
    return f"{sign}{whole}.{table.decimals}"


def _header(shown: Sequence[Column], siunitx: bool) -> str:
    titles = []
    for column in shown:
        title = {"difference": r"$\Delta$", "p": "$p$", "p_holm": r"$p_{\mathrm{Holm}}$"}.get(
            column.key, escape(column.header)
        )
        if siunitx and column.key == "mean":
            title = rf"\multicolumn{{2}}{{c}}{{{title}}}"
        elif siunitx and column.key == "difference":
            title = f"{{{title}}}"
        titles.append(title)
    return _line(["Cell", *titles])


def _name(row: Row) -> str:
    """The first cell; the row end before it would take a leading bracket or star for its own argument."""
    name = escape(row.cell)
    return "{}" + name if name.startswith(("[", "*")) else name


def _plain(table: AblationTable, row: Row, shown: Sequence[Column]) -> list[str]:
    """A row's cells without siunitx."""
    texts = []
    for column in shown:
        text = _number(column.text(row))
        if column.key == "mean" and row.best:
            text = rf"\textbf{{{text}}}"
        elif column.key == "mean" and row.second:
            text = rf"\underline{{{text}}}"
        elif column.key == "difference":
            text += _MARKS[flag(row)]
        texts.append(text)
    return texts


def _aligned(table: AblationTable, row: Row, shown: Sequence[Column]) -> list[str]:
    """A row's cells with the mean, its sd and the difference in S columns."""
    texts = []
    for column in shown:
        if column.key == "mean":
            texts += [_emphasised(row, table.decimals), _s_number(row.sd, table.decimals)]
        elif column.key == "difference":
            mark = _MARKS[flag(row)]
            number = _s_number(row.difference, table.decimals, signed=True)
            texts.append(number + (f"{{{mark}}}" if mark else ""))
        else:
            texts.append(_number(column.text(row)))
    return texts


def _emphasised(row: Row, places: int) -> str:
    number = _s_number(row.mean, places)
    if row.best:
        return rf"\bfseries {number}"
    # braces take the cell out of the number parser: an underline cannot be aligned digit by digit
    return rf"{{\underline{{{number}}}}}" if row.second else number


def _s_number(value: float | None, places: int, *, signed: bool = False) -> str:
    return "{--}" if value is None else fixed(value, places, signed=signed)


def _number(text: str) -> str:
    return "--" if text == NOTHING else _prose(text)


def _prose(text: str) -> str:
    """Escaped text in which a minus sign is a minus sign."""
    return escape(_NEGATIVE.sub("\N{MINUS SIGN}", text))


def _line(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"
