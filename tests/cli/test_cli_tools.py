"""`doctor`, `dashboard` and `bench`: what surrounds the studies."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from miras_search import doctor


def _checks(result) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in result.json["checks"]}


def test_doctor_finds_a_fresh_folder_ready(cli, here: Path) -> None:
    result = cli("doctor", "--json")
    checks = _checks(result)
    assert result.code == 0
    assert "not there yet" in checks["database"]["found"]
    assert list(here.iterdir()) == []
    assert {"versions", "database", "disk", "ray", "cores", "gpu", "triton"} <= set(checks)


def test_doctor_looks_into_the_database_and_changes_nothing(cli, stored: Path) -> None:
    before = stored.read_bytes()
    result = cli("doctor")
    assert result.code == 0
    assert "writable, revision" in result.out
    assert stored.read_bytes() == before


def test_doctor_gives_a_remedy_for_a_problem(cli, here: Path) -> None:
    result = cli("doctor", "--db", "nowhere/miras.db", "--json")
    assert result.code == 3
    check = _checks(result)["database"]
    assert check["level"] == "problem"
    assert check["remedy"].startswith("mkdir -p ")
    Path("text.db").write_text("this is no database, whatever its name says" * 50)
    said = cli("doctor", "--db", "text.db")
    assert said.code == 3
    assert "problem  database" in said.out
    assert "-> give the path of a miras-search database" in said.out


def test_doctor_tells_of_a_run_that_is_gone(cli, stored: Path) -> None:
    from sqlalchemy import text

    from miras_search.store.database import Database

    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    silent = "heartbeat_at = '2020-01-01 00:00:00.000000'"
    now = "heartbeat_at = strftime('%Y-%m-%d %H:%M:%f', 'now')"
    found = {}
    for change in (silent, f"{now}, pid = {process.pid}", f"{now}, pid = {os.getpid()}"):
        with Database.open(stored) as db, db.writing() as session:
            session.execute(text(f"UPDATE ms_run SET status = 'running', {change}"))
        check = _checks(cli("doctor", "--json"))["lease"]
        found[change] = check["level"]
        assert ("it is gone" in check["found"]) == (check["level"] == "warning")
    assert list(found.values()) == ["warning", "warning", "ok"], "of this machine it is known at once, as run does"


def test_doctor_warns_of_a_full_disk(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=1))
    result = cli("doctor", "--json")
    assert result.code == 3
    assert _checks(result)["disk"]["remedy"]


def test_the_dashboard_gets_the_database_by_its_environment(cli, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], str]] = []
    monkeypatch.setattr(os, "execve", lambda path, argv, env: started.append((argv, env["MIRAS_DB_URL"])))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        busy = cli("dashboard", "--port", str(port))
        assert busy.code == 3
        assert busy.err == f"127.0.0.1:{port}: cannot listen there: Address already in use: take another with --port\n"
    result = cli("dashboard", "--port", str(port))
    assert result.code == 0
    assert f"http://127.0.0.1:{port}" in result.err
    ((argv, url),) = started
    assert f"--server.port={port}" in argv
    assert str(stored) in url
    assert str(stored) not in " ".join(argv)
    assert cli("dashboard", "--port", "0").code == 2
    assert cli("dashboard", "--host", "192.0.2.1").code == 3  # an address of nobody's


def test_bench_training_measures_a_design(cli) -> None:
    result = cli("bench", "training", "--only", "linear_attention", "--blocks", "1", "--device", "cpu", "--json")
    assert result.code == 0, result.err
    (row,) = result.json["rows"]
    assert row["name"] == "linear_attention"
    assert row["tokens_per_second"] > 0
    wrong = cli("bench", "training", "--only", "nothing")
    assert wrong.code == 2
    assert "linear_attention" in wrong.err


def test_bench_kernels_measures_each_implementation_or_says_why_not(cli) -> None:
    words = [
        "--only",
        "delta_net",
        "--rounds",
        "1",
        "--tokens",
        "16",
        "--memories",
        "2",
        "--width",
        "4",
        "--device",
        "cpu",
    ]
    result = cli("bench", "kernels", *words, "--json")
    assert result.code == 0, result.err
    rows = {row["implementation"]: row for row in result.json["rows"]}
    kernels = {"triton", "triton in turn", "triton at once", "triton loop"}
    assert set(rows) == {*kernels, "chunkwise", "recurrence", "chunkwise compiled", "fla"}
    assert "GPU" in rows["triton"]["refused"] and rows["triton"]["training_ms"] is None
    for name in ("chunkwise", "recurrence"):
        assert rows[name]["refused"] is None
        assert 0 < rows[name]["forward_ms"] < 1e6 and rows[name]["tokens_per_second"] > 0
    assert "not triton: Triton compiles for GPUs; the device is cpu: delta_net\n" in cli("bench", "kernels", *words).out
    assert cli("bench", "kernels", "--tokens", "16,x").err.startswith("--tokens 16,x: 'x' is no number")
    assert cli("bench", "kernels", "--only", "nothing").code == 2
    assert cli("bench", "kernels", "--device", "tpu").code == 3
