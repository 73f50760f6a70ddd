"""The command that starts the dashboard keeps to one address and keeps the database's address to itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from miras_search.dashboard.launch import APP, VARIABLE, command
from miras_search.errors import MirasError


def test_the_server_listens_on_one_address_for_known_hosts_only() -> None:
    arguments, _ = command("miras.db", port=8600)
    assert arguments[:5] == [sys.executable, "-m", "streamlit", "run", str(APP)]
    assert "--server.address=127.0.0.1" in arguments
    assert "--server.port=8600" in arguments
    hosts = [flag.partition("=")[2] for flag in arguments if flag.startswith("--server.allowedHosts=")]
    assert hosts == ["localhost", "127.0.0.1"]


def test_nothing_is_told_to_anyone_else() -> None:
    arguments, _ = command("miras.db")
    assert {"--browser.gatherUsageStats=false", "--client.showErrorDetails=type"} < set(arguments)


def test_a_chosen_host_is_allowed_too() -> None:
    arguments, _ = command("miras.db", host="192.168.7.5")
    assert "--server.address=192.168.7.5" in arguments
    assert "--server.allowedHosts=192.168.7.5" in arguments


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_listening_everywhere_is_refused_with_the_cure(host: str) -> None:
    with pytest.raises(MirasError, match="SSH tunnel"):
        command("miras.db", host=host)


@pytest.mark.parametrize("port", [0, 70_000])
def test_an_impossible_port_is_named(port: int) -> None:
    with pytest.raises(MirasError, match=str(port)):
        command("miras.db", port=port)


def test_a_password_travels_in_the_environment_only() -> None:
    arguments, environment = command("postgresql://ada:s3cret@db.example/miras")
    assert "s3cret" not in " ".join(arguments)
    assert "ada:s3cret@" in environment[VARIABLE]


def test_a_relative_path_still_means_the_same_file_in_the_other_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, environment = command("miras.db")
    assert environment[VARIABLE] == f"sqlite:///{tmp_path / 'miras.db'}"
    assert "PATH" in environment


def test_the_files_beside_the_app_are_there() -> None:
    folder = APP.parent
    for name in ("app.py", ".streamlit/config.toml", "assets/icon.png", "assets/style.css"):
        assert (folder / name).is_file()


def test_starting_it_needs_none_of_the_heavy_packages() -> None:
    heavy = "('streamlit', 'torch', 'ray', 'optuna', 'pandas', 'plotly')"
    code = f"import sys, miras_search.dashboard.launch; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_pages_never_load_torch_ray_or_optuna() -> None:
    modules = ", ".join(
        f"miras_search.dashboard.{name}"
        for name in ("designs", "forest", "found", "frames", "learning", "links", "markup", "page", "progress")
    )
    heavy = "('torch', 'ray', 'optuna', 'miras_search.engine', 'miras_search.training')"
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
