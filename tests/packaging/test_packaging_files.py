"""What every tracked file keeps to: its length, and no path that exists on one machine only."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 450  # lines; a longer file holds more than one concept
MACHINE = re.compile("|".join(rf"(?<![\w.}}*])/{name}/\w" for name in ("work", "root", "tmp")))


def tracked() -> list[Path]:
    """Tracked regular files that are there; skips where this is no git checkout."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [file for file in files if file.is_file() and not file.is_symlink()]


def test_no_python_file_is_longer_than_a_concept() -> None:
    lengths = {
        file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines())
        for file in tracked()
        if file.suffix == ".py"
    }
    assert len(lengths) > 50
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_no_file_names_a_path_of_one_machine() -> None:
    assert MACHINE.search("see /" + "work/notes.md")
    assert not MACHINE.search("https://example.org/work/notes.md")
    found = []
    for file in tracked():
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue  # an image or another binary file
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found
