"""Four folders at the top of the repository install as one package: list, wheel, links and guards agree."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
TOP = {name: f"miras_search.{name}" for name in ("space", "kernels", "dashboard", "studies")}


def tracked() -> dict[str, str]:
    """Mode of every tracked file that is there, by path; skips where this is no git checkout."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-s", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    entries = (line.split("\t", 1) for line in listed.stdout.split("\0") if line)
    return {path: about.split()[0] for about, path in entries if (ROOT / path).exists()}


def installed(path: str) -> str | None:
    """Where a file of the repository lies in the wheel, or None."""
    head, _, rest = path.partition("/")
    if head == "miras_search":
        return path
    return f"{TOP[head].replace('.', '/')}/{rest}" if head in TOP else None


def folders() -> set[str]:
    """Every folder with an __init__.py, as the package it installs as; links are not followed."""
    found = set()
    for top in ("miras_search", *TOP):
        for init in (ROOT / top).rglob("__init__.py"):
            place = installed(init.relative_to(ROOT).as_posix())
            assert place is not None
            found.add(place.removesuffix("/__init__.py").replace("/", "."))
    return found


def test_the_list_of_packages_is_the_list_of_folders() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(folders())


def test_every_package_outside_has_its_folder() -> None:
    """A package below miras_search/ needs no entry; one of the other folders needs its own, subfolders too."""
    expected = {"miras_search": "miras_search"}
    for package in SETUPTOOLS["packages"]:
        for top, name in TOP.items():
            if package == name or package.startswith(f"{name}."):
                expected[package] = top + package.removeprefix(name).replace(".", "/")
    assert SETUPTOOLS["package-dir"] == expected


def test_the_wheel_holds_the_tracked_files_and_nothing_else(tmp_path: Path) -> None:
    files, copy = tracked(), tmp_path / "checkout"
    for path, mode in files.items():
        if path.partition("/")[0] in ("tests", "docs"):
            continue
        target = copy / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target, follow_symlinks=mode != "120000")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*pip, "--no-index", "-q", "-w", tmp_path, copy], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    content = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {installed(path) for path, mode in files.items() if mode != "120000"} - {None}
    assert content == expected


def test_links_are_links_or_the_package_is_installed() -> None:
    """A checkout without symbolic links (Windows) works once installed."""
    for name in TOP:
        link = ROOT / "miras_search" / name
        if link.is_symlink():
            assert link.resolve() == ROOT / name
        else:
            assert importlib.util.find_spec(f"miras_search.{name}") is not None, (
                f"{link} is no link and the package is not installed: pip install -e ."
            )


def test_links_are_committed_as_links() -> None:
    files = tracked()
    assert {path for path, mode in files.items() if mode == "120000"} == {f"miras_search/{name}" for name in TOP}


@pytest.mark.parametrize("name", sorted(TOP))
def test_a_bare_import_from_the_root_says_what_to_import(name: str) -> None:
    """Two copies of every class otherwise, and other people's packages of these names in our place."""
    found = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    last = found.stderr.strip().splitlines()[-1]
    assert last == f"ImportError: import this package as miras_search.{name}, not as {name}"


def test_the_console_script_exists() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["miras-search"].partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    assert f"def {function}(" in Path(spec.origin).read_text()
