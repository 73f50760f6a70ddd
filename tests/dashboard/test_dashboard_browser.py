"""One tour in a real browser: choose a study, open a trial by its row, download LaTeX; nothing leaves this machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import pytest

from miras_search.analysis.stored import stored_tables
from miras_search.dashboard.launch import command
from miras_search.export.formats import RENDERERS
from miras_search.store.database import Database

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-default-apps",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing outside can be reached
)
LIMIT = 60.0  # seconds for the server to come up

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


class Maker(Protocol):
    path: Path

    def study(self, name: str = ..., **settings: object) -> None: ...


@pytest.fixture
def address(maker: Maker) -> Iterator[str]:
    """A dashboard on a database of two studies; the server ends with the test."""
    maker.study("bias")
    maker.study("newer", levels="[l2, dot]", controls="[]", seeds=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    arguments, environment = command(str(maker.path), port=port)
    server = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(server, f"http://127.0.0.1:{port}/_stcore/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(server: subprocess.Popen[bytes], url: str) -> None:
    """Ask until the server answers."""
    deadline = time.monotonic() + LIMIT
    while True:
        assert server.poll() is None, "the server ended by itself"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert time.monotonic() < deadline, "the server does not answer"
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=0.1)


def test_a_tour(address: str, maker: Maker) -> None:
    hosts: set[str | None] = set()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.set_default_timeout(60_000)
            page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
            page.goto(address)
            page.get_by_role("heading", name="newer", exact=True).wait_for()

            # choose the other study in the sidebar: the address follows
            page.get_by_test_id("stSidebar").get_by_test_id("stSelectbox").locator("input").click()
            page.get_by_role("option", name="bias", exact=True).click()
            page.get_by_role("heading", name="bias", exact=True).wait_for()
            page.wait_for_url("**/?study=bias")

            page.get_by_role("link", name="Trials", exact=True).click()
            page.get_by_text("7 of 7 trials.").wait_for()
            settle(page)
            table = page.get_by_test_id("stDataFrame").locator("canvas").first
            box = table.bounding_box()
            assert box is not None
            page.mouse.click(box["x"] + 18, box["y"] + 35 + 3 * 35 + 18)  # the box in front of the fourth row
            page.get_by_role("heading", name="huber(delta=0.5)", exact=True).wait_for()
            page.wait_for_url("**/trial?*trial=3*")
            page.get_by_text("norm: u = r min(1, d/|r|)").wait_for()

            page.get_by_role("link", name="Ablation table", exact=True).click()
            page.locator(".js-plotly-plot").wait_for()
            assert page.locator(".ms table b").inner_text() == "0.815 ± 0.036"
            settle(page)
            with page.expect_download() as started:
                page.get_by_role("button", name="LaTeX").click()
            downloaded = Path(started.value.path()).read_bytes()
            assert started.value.suggested_filename == "bias-accuracy.tex"

            # a link from the table is a deep link
            page.get_by_role("link", name="dot", exact=True).click()
            page.get_by_role("heading", name="dot", exact=True, level=1).wait_for()
            assert "study=bias" in page.url
        finally:
            browser.close()
    with Database.open(maker.path, read_only=True) as db:
        assert downloaded == RENDERERS["latex"](stored_tables(db, "bias")).encode()
    assert hosts <= {"127.0.0.1", "", None}  # data: and blob: addresses have no host


def settle(page: Page) -> None:
    """Wait until the script has run and the browser has painted twice."""
    page.wait_for_function(
        """() => document.querySelector("[data-testid='stApp']")
            ?.getAttribute('data-test-script-state') === 'notRunning'"""
    )
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
