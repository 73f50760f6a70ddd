"""`export` as a user drives it: every file is there and is what its ending says; the report stands by itself."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from miras_search.analysis.stored import stored_tables
from miras_search.export.formats import RENDERERS
from miras_search.export.report import findings, to_report
from miras_search.store import queries
from miras_search.store.database import Database

CHROMIUM = Path("/usr/bin/chromium")
FILES = {
    "report.html", "study.yaml",
    *(f"tables/table.{ending}" for ending in ("txt", "md", "tex", "html", "csv", "json")), "tables/table-siunitx.tex",
    "tables/statistics.txt", "tables/statistics.json",
    *(f"figures/forest-mqar.{ending}" for ending in ("svg", "pdf", "png")),
    *(f"data/{name}.{ending}" for name in ("table", "trials", "jobs", "curves") for ending in ("csv", "parquet")),
}  # fmt: skip
MOST = 3_000_000


@pytest.fixture(scope="module")
def exported(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder written once, through the command line."""
    from miras_search.cli import main

    folder = tmp_path_factory.mktemp("exported") / "out"
    assert main(["export", "small", "--output", str(folder), "--db", str(database)]) == 0
    return folder


def test_it_writes_all_that_a_paper_or_a_colleague_needs(exported: Path, database: Path) -> None:
    found = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert found - {f"figures/curves-mqar.{form}" for form in ("svg", "pdf", "png")} == FILES
    with Database.open(database, read_only=True) as db:
        assert (exported / "study.yaml").read_text() == queries.study(db, "small").config_yaml
        assert (exported / "tables" / "table.tex").read_text() == RENDERERS["latex"](stored_tables(db, "small"))


def test_figures_are_what_their_endings_say(exported: Path) -> None:
    figures = exported / "figures"
    assert (figures / "forest-mqar.png").read_bytes().startswith(b"\x89PNG")
    pdf = (figures / "forest-mqar.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf and b"/Type3" not in pdf
    svg = (figures / "forest-mqar.svg").read_text()
    assert "<svg" in svg and "<text" not in svg  # letters are drawn


def test_data_keeps_types_and_what_is_missing(exported: Path) -> None:
    places = {name: exported / "data" / name for name in ("table", "trials", "jobs", "curves")}
    data = {name: pd.read_parquet(place.with_suffix(".parquet")) for name, place in places.items()}
    jobs = data["jobs"]
    assert jobs["state"].value_counts().to_dict() == {"complete": 9, "diverged": 1, "failed": 1, "waiting": 1}
    assert jobs["last_step"].dtype == "Int64" and jobs["last_step"].isna().sum() == 1
    assert jobs["accuracy.test"].dtype == "float64" and jobs["accuracy.test"].count() == 9
    trials = data["trials"].set_index("cell")
    assert trials.loc["dot", "bias"] == "dot" and pd.isna(trials.loc["l2", "bias"])
    assert trials["jobs_failed"].sum() == 1
    table = data["table"].set_index("cell")
    assert table["failed"].dtype == "Int64" and pd.isna(table.loc["l2", "difference"])
    assert set(data["curves"].columns) == {"cell", "task", "seed", "metric", "split", "step", "value"}
    for name, frame in data.items():
        assert len(pd.read_csv(places[name].with_suffix(".csv"))) == len(frame) > 0


def test_the_report_says_everything_and_names_no_machine(exported: Path) -> None:
    page = (exported / "report.html").read_text()
    assert len(page) < MOST
    text = re.sub(r"<[^>]*>", " ", page)
    said = ("Which bias?", "11 of 12 jobs ended", "1 diverged", "1 failed", "not decided", "negative controls")
    origin = ("ValueError: too bad", "commit 0123456", "torch 2.13.0", "vary: {bias: [dot, value_shift]}")
    for words in (*said, *origin):
        assert words in text
    assert "vm" not in re.findall(r"\w+", text)
    addresses = re.findall(r"(?:src|href|action)=\"([^\"]*)\"|url\(([^)]*)\)|@import", page)
    assert all(address.startswith("#") for pair in addresses for address in pair if address)
    assert page.count("<svg ") >= 1 and 'class="tip"' in page


def test_a_study_with_nothing_to_compare_has_a_report_too(database: Path) -> None:
    with Database.open(database, read_only=True) as db:
        found = findings(db, "small")
        page = to_report(replace(found, tables=[], curves={}, statistics=[], ranks=None))
    assert "Nothing is confirmed" in page and "<svg" not in page


def test_a_completed_training_without_a_finite_value_is_no_value_of_the_report(database: Path) -> None:
    with Database.open(database, read_only=True) as db:
        found = findings(db, "small")
        key = ("accuracy", "test")
        results = found.shown.results
        first = next(i for i, row in enumerate(results) if row.state == "complete" and row.number == 0)
        for value in (math.nan, math.inf):
            row = replace(results[first], values={**results[first].values, key: value})
            shown = replace(found.shown, results=[*results[:first], row, *results[first + 1 :]])
            page = to_report(replace(found, shown=shown))
            assert "(2)" in page and not re.search(r">(nan|inf) \(", page)


def test_another_metric_and_reference(database: Path) -> None:
    with Database.open(database, read_only=True) as db:
        (table,) = findings(db, "small", metric="loss", split="train", against="dot").tables
    assert (table.metric, table.split, table.base) == ("loss", "train", "dot")


def test_a_folder_with_something_in_it_is_left_alone_and_the_same_results_give_the_same_bytes(
    cli, stored: Path, here: Path, exported: Path
) -> None:
    (here / "out").mkdir()
    (here / "out" / "mine.txt").write_text("mine")
    refused = cli("export", "small", "-o", "out")
    assert (refused.code, refused.out) == (2, "")
    assert "--force" in refused.err and refused.err.count("\n") == 1
    found = cli("export", "small", "-o", "out", "--force", "--json").json
    assert (here / "out" / "mine.txt").read_text() == "mine"
    assert found["folder"] == "out"
    for place in found["files"]:
        assert (here / place).read_bytes() == (exported / Path(place).relative_to("out")).read_bytes(), place


def test_what_cannot_be_written_is_a_problem_of_the_environment(cli, stored: Path) -> None:
    result = cli("export", "small", "-o", "miras.db/x")
    assert (result.code, result.out) == (3, "")
    assert "cannot be written" in result.err


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")
def test_a_browser_shows_it_and_asks_nobody(exported: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    address = (exported / "report.html").as_uri()
    asked: list[str] = []
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--headless=new", "--disable-gpu"]
        )
        try:
            page = browser.new_page()
            page.set_default_timeout(60_000)
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(address)
            page.locator("figure.forest .tip").first.hover()
            assert "accuracy" in page.locator("#tip").inner_text()
            head = page.locator("table.sortable th", has_text="cell").first
            head.click()
            cells = page.locator("table.sortable").first.locator("tbody td:nth-child(2)").all_inner_texts()
            assert cells == sorted(cells)
        finally:
            browser.close()
    assert (asked, complaints) == ([address], [])
