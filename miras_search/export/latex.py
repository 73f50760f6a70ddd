"""Tables as LaTeX for a paper: booktabs rules, the base first, the controls under a rule of their own.

What is the same in every row is said once, under the table, so that it fits a page. By default only the package
booktabs is needed. With `siunitx` the means and differences go into S columns that align on the decimal point; best and
second are then marked inside the number column, which needs siunitx 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from miras_search.analysis.numbers import NOTHING, fixed
from miras_search.analysis.table import AblationTable, Row
from miras_search.export.layout import Column, Tables, as_tables, columns, flag
from miras_search.export.sections import Part, joint_caption, joint_notes, parts, sections

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
    "flops_per_token",
    "tokens_per_second",
    "peak_memory_bytes",
)

_BESIDE = ("mean", "difference")  # two or three tasks with intervals are wider than a page
_PAGE, _LETTER, _GAP = 345.0, 4.1, 3.5  # points: the text of an article, a digit in \footnotesize, half a column's gap
_SHARED = {
    "n": "",
    "params": "Every cell has {} parameters.",
    "state_bytes": "The state takes {} in every cell.",
    "flops_per_token": "A forward pass takes {} FLOPs a token in every cell.",
}


def to_latex(tables: Tables, siunitx: bool = False, *, side_by_side: bool = False) -> str:
    """Each table as a `table` environment, led by a comment that says where it comes from.

    `side_by_side` makes one of all: a row a cell, a group of columns a task.
    """
    shown = as_tables(tables)
    blocks = [shown] if side_by_side and shown else [(table,) for table in shown]
    return "\n".join(_one(block, siunitx) for block in blocks)


def escape(text: str) -> str:
    """Text that LaTeX sets as it is, on one line; signs and Greek letters as mathematics."""
    return " ".join(text.split()).translate(_ESCAPES)


def _one(tables: Sequence[AblationTable], siunitx: bool) -> str:
    shared = _shared(tables)
    keys = _SHOWN if len(tables) == 1 else _BESIDE
    found = parts(tables, [key for key in keys if key not in shared])
    lines = [
        *map(comment, tables),
        r"\begin{table}[t]",
        r"  \centering",
        r"  \footnotesize",
        r"  \setlength{\tabcolsep}{3.5pt}",
        rf"  \caption{{{prose(joint_caption(tables))}}}",
        rf"  \label{{tab:{_slug(tables)}}}",
        r"  \par\smallskip",
        *_tabulars(tables[0], found, siunitx),
    ]
    words = [_legend(tables), *shared.values(), *joint_notes(tables)]
    if len(tables) > 1:
        more = ", and what was chosen for each row," if any(table.has_tuned for table in tables) else ""
        words.append(f"The intervals{more} are in the tables of the single tasks.")
    lines += [rf"  \par\smallskip\raggedright {prose(' '.join(filter(None, words)))}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _tabulars(table: AblationTable, found: Sequence[Part], siunitx: bool) -> list[str]:
    """One tabular; two where it would be wider than a page: the comparison first, the costs under it."""
    comparison, costs = ([part.only(is_cost=is_cost) for part in found] for is_cost in (False, True))
    if _points(found) <= _PAGE or not any(part.columns for part in costs):
        return _tabular(table, found, siunitx)
    return [*_tabular(table, comparison, siunitx), r"  \par\medskip", *_tabular(table, costs, siunitx)]


def _points(found: Sequence[Part]) -> float:
    """About how wide the tabular becomes."""
    names = max(len(row.cell) for row in found[0].table.rows)
    widths = [
        max(len(text) for text in (column.header, *(column.text(row) for row in part.table.rows)))
        for part in found
        for column in part.columns
    ]
    return _LETTER * (names + sum(widths)) + 2 * _GAP * (1 + len(widths))


def _tabular(table: AblationTable, found: Sequence[Part], siunitx: bool) -> list[str]:
    width = 1 + sum(_width(column, siunitx) for part in found for column in part.columns)
    lines = [
        rf"  \begin{{tabular}}{{l{''.join(_specification(part, siunitx) for part in found)}}}",
        r"    \toprule",
        *(f"    {line}" for line in _tasks(found, siunitx)),
        f"    {_header(found, siunitx)}",
    ]
    for section in sections(table):
        lines.append(r"    \midrule")
        if section.title:
            lines.append(rf"    \multicolumn{{{width}}}{{l}}{{\emph{{{escape(section.title)}}}}} \\")
        for row in section.rows:
            texts = [text for part in found for text in _texts(part, part.row(row.cell), siunitx)]
            lines.append(f"    {_line([_name(row, indented=bool(section.title)), *texts])}")
    return [*lines, r"    \bottomrule", r"  \end{tabular}"]


def _shared(tables: Sequence[AblationTable]) -> dict[str, str]:
    """The columns that would say the same in every row, with the words that say it once; n is in the caption."""
    found = {}
    known = {column.key: column for column in columns(tables[0])}
    for key, words in _SHARED.items():
        values = {known[key].text(row) for table in tables for row in table.rows} if key in known else set()
        if len(values) == 1 and NOTHING not in values:
            found[key] = words.format(*values)
    return found


def _legend(tables: Sequence[AblationTable]) -> str:
    """The longer one, where a row of any task is censored."""
    return next((table.legend for table in tables if table.has_censored), tables[0].legend)


def comment(table: AblationTable, verb: str = "table", also: str = "") -> str:
    """One line: study, commit, command, date, n; `verb`, with what it needs `also`, makes what the line leads."""
    context = table.context
    command = context.command.replace("miras-search table", f"miras-search {verb}", 1) if context.command else "unknown"
    command = f"{command} {also}" if also and context.command else command
    counts = sorted({row.n for row in table.rows})
    words = [
        f"study {table.study}",
        f"task {table.task}",
        f"commit {context.commit or 'unknown'}",
        f"command {command}",
        f"date {context.date or 'unknown'}",
        f"n {counts[0]} to {counts[-1]}" if len(counts) > 1 else f"n {counts[0]}",
    ]
    return "% " + " ".join("; ".join(words).split())


def _slug(tables: Sequence[AblationTable]) -> str:
    text = "-".join([tables[0].study, *(table.task for table in tables), tables[0].metric])
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _specification(part: Part, siunitx: bool) -> str:
    """The alignment of a task's columns; S columns hold as many digits as the widest number has."""
    table = part.table
    if not siunitx:
        return "r" * len(part.columns)
    mean = _digits(table, [row.mean for row in table.rows])
    sd = _digits(table, [row.sd for row in table.rows])
    difference = _digits(table, [row.difference for row in table.rows]).lstrip("-")
    options = rf"table-format=+{difference}, retain-explicit-plus, table-space-text-post={{$^{{\ddagger}}$}}"
    s_columns = {
        "mean": rf"S[table-format={mean}, detect-weight, mode=text]@{{${{}}\pm{{}}$}}S[table-format={sd}]",
        "difference": f"S[{options}]",
    }
    return "".join(s_columns.get(column.key, "r") for column in part.columns)


def _width(column: Column, siunitx: bool) -> int:
    """How many columns of the tabular it takes: with siunitx the mean and its sd have one each."""
    return 2 if siunitx and column.key == "mean" else 1


def _digits(table: AblationTable, values: Sequence[float | None]) -> str:
    """The table-format of numbers with the table's decimals, as in -1.3."""
    known = [value for value in values if value is not None]
    whole = max((len(fixed(abs(value), 0)) for value in known), default=1)
    sign = "-" if any(value < 0 for value in known) else ""
    return f"{sign}{whole}.{table.decimals}"


def _tasks(found: Sequence[Part], siunitx: bool) -> list[str]:
    """The names of the tasks over their columns, with rules; nothing above a single task."""
    if len(found) == 1:
        return []
    names, rules, left = [""], [], 2
    for part in found:
        width = sum(_width(column, siunitx) for column in part.columns)
        names.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(part.table.task)}}}")
        rules.append(rf"\cmidrule(lr){{{left}-{left + width - 1}}}")
        left += width
    return [_line(names), " ".join(rules)]


def _header(found: Sequence[Part], siunitx: bool) -> str:
    titles = []
    for column in (column for part in found for column in part.columns):
        title = {"difference": r"$\Delta$", "p": "$p$", "p_holm": r"$p_{\mathrm{Holm}}$"}.get(
            column.key, escape(column.header)
        )
        if siunitx and column.key == "mean":
            title = rf"\multicolumn{{2}}{{c}}{{{title}}}"
        elif siunitx and column.key == "difference":
            title = f"{{{title}}}"
        titles.append(title)
    return _line(["Cell", *titles])


def _name(row: Row, *, indented: bool) -> str:
    """The first cell; the row end before it would take a leading bracket or star for its own argument."""
    name = escape(row.cell)
    name = "{}" + name if name.startswith(("[", "*")) else name
    return rf"\quad {name}" if indented else name


def _texts(part: Part, row: Row | None, siunitx: bool) -> list[str]:
    """A row's cells on one task; dashes where the task does not have the cell."""
    if row is None:
        return ["{--}"] * sum(_width(column, siunitx) for column in part.columns)
    return _aligned(part.table, row, part.columns) if siunitx else _plain(row, part.columns)


def _plain(row: Row, shown: Sequence[Column]) -> list[str]:
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
    return "--" if text == NOTHING else prose(text)


def prose(text: str) -> str:
    """Escaped text in which a minus sign is a minus sign."""
    return escape(_NEGATIVE.sub("\N{MINUS SIGN}", text))


def _line(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"
