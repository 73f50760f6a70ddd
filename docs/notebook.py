"""Writes docs/api.ipynb: the page docs/api.md, executed by Jupyter in a folder of its own. `make notebook` runs it."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
PAGE, NOTEBOOK = HERE / "api.md", HERE / "api.ipynb"
SECONDS = 600  # for a cell; the first trains
SELF = (
    "A test runs this page; [api.ipynb](api.ipynb) is the same with what it printed.",
    "[api.md](api.md) is the same page without outputs.",
)


def cells(page: str) -> list[nbformat.NotebookNode]:
    """The page's text and its Python blocks in turn."""
    made = []
    for i, part in enumerate(re.split(r"^```python\n(.*?)^```\n", page.replace(*SELF), flags=re.M | re.S)):
        if part.strip():
            new = nbformat.v4.new_code_cell if i % 2 else nbformat.v4.new_markdown_cell
            made.append(new(part.strip(), id=f"cell-{len(made)}"))
    return made


def main() -> None:
    """Execute the page and write it with its outputs; an error in a cell is raised and nothing is written."""
    book = nbformat.v4.new_notebook(cells=cells(PAGE.read_text(encoding="utf-8")))
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # a bar of Optuna's, which is not what the page shows
    with tempfile.TemporaryDirectory() as folder:
        settings = {"metadata": {"path": folder}}
        NotebookClient(book, timeout=SECONDS, kernel_name="python3", record_timing=False, resources=settings).execute()
    book.metadata["language_info"] = {"name": "python"}  # not the version of Python that happened to run it
    nbformat.validate(book)
    NOTEBOOK.write_text(nbformat.writes(book) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
