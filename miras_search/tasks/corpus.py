"""Real files as bytes, cut once into train, validation and test parts that share no file.

Files are taken in the order of a hash of their relative path, never of the alphabet: a size cap then samples the whole
tree instead of dropping its end, and adding one file leaves the place of the others alone. Exact copies are taken once,
or a licence text found in twenty folders would be trained on and tested on.

The parts are sets of whole files wherever the files are small enough. A corpus of a few large files cannot be split so;
then each file gives its first 90 % to training and its last two twentieths to validation and test.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from miras_search.errors import MirasError
from miras_search.tasks.base import Split

BOUNDARY = b"\0"
"""Ends every file in a part, so that a model can tell where one text stops."""

HELD_OUT = 20
"""Validation and test each get one part in this many."""

# not the library's own sources; or repetitive: tests repeat the code they test, the codec tables repeat each other
_NOT_LIBRARY = {"test", "tests", "idle_test", "encodings", "lib2to3", "site-packages", "dist-packages", "lib-dynload"}
# written when a Python is built or installed: they differ between two machines with the same Python
_MACHINE = ("_sysconfigdata", "config-", "sitecustomize")


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """The three parts as bytes [N], and where they came from."""

    parts: dict[Split, NDArray[np.uint8]]
    """Read-only arrays of bytes."""
    files: dict[Split, tuple[str, ...]]
    """Relative paths, in the order of the bytes."""
    split_by: Literal["file", "region"]
    """file: no file is in two parts. region: every file is in all three, in regions that do not overlap."""
    hash: str
    """sha256 over the parts' names, files and bytes: equal exactly when the data are."""


@lru_cache(maxsize=4)
def read_corpus(source: str, max_bytes: int) -> Corpus:
    """The corpus of a source, at most `max_bytes` of it; read once a process.

    `source` is `stdlib`, a file, a folder, or a glob pattern (`**` for any depth). In a folder, hidden files and
    `__pycache__` are left out; in `stdlib`, tests and installed packages too. Relative paths start at the working
    directory. Raises `MirasError` when there is nothing to read or a file cannot be read.
    """
    try:
        taken = list(_read(_find(source), max_bytes))
    except OSError as error:
        what = f"cannot read {error.filename}: {error.strerror}"
        raise MirasError(f"text corpus {source!r}: {what}; grant access or leave it out by a glob pattern") from error
    if not taken:
        raise MirasError(f"text corpus {source!r}: every file is empty; name files with text in them")
    by_file = _by_file(taken)
    chosen = by_file or _by_region(taken)
    digest = hashlib.sha256()
    for split, texts in chosen.items():
        digest.update(f"{split}\n".encode())
        for name, text in texts:
            digest.update(f"{name}\n{len(text)}\n".encode())
            digest.update(text)
    return Corpus(
        parts={split: _joined(text for _, text in texts) for split, texts in chosen.items()},
        files={split: tuple(name for name, _ in texts) for split, texts in chosen.items()},
        split_by="file" if by_file else "region",
        hash=digest.hexdigest(),
    )


_Text = tuple[str, bytes]
_Parts = dict[Split, list[_Text]]


def _find(source: str) -> dict[str, Path]:
    """Relative path -> file, for every file of the source."""
    path = Path(source).expanduser()
    if source == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        names = _below(root, _NOT_LIBRARY)
        found = {name: file for name, file in names.items() if name.endswith(".py") and not name.startswith(_MACHINE)}
        cure = f"this Python has no sources in {root}; name a folder of text files"
    elif path.is_dir():
        found, cure = _below(path, set()), "the folder holds no files but hidden ones; name another"
    elif path.is_file():
        found, cure = {path.name: path}, ""
    elif glob.has_magic(source):
        top = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        matches = (Path(match) for match in glob.glob(str(path), recursive=True))
        found = {match.relative_to(top).as_posix(): match for match in matches if match.is_file()}
        cure = f"the pattern matches no file from {Path.cwd()}; ** stands for folders of any depth"
    else:
        found, cure = {}, f"no such file or folder from {Path.cwd()}; give a path, a glob pattern or stdlib"
    if not found:
        raise MirasError(f"text corpus {source!r}: {cure}")
    return found


def _below(root: Path, skipped: set[str]) -> dict[str, Path]:
    """Every file below a folder by its relative path; links to folders are not followed, so no loop is entered."""
    skipped = skipped | {"__pycache__"}
    found = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in skipped]
        for path in (Path(folder, name) for name in files if not name.startswith(".")):
            if path.is_file():
                found[path.relative_to(root).as_posix()] = path
    return found


def _read(found: dict[str, Path], max_bytes: int) -> Iterator[_Text]:
    """Names and bytes in hash order, without empty files and copies, cut at `max_bytes` in all."""
    contents: set[bytes] = set()
    left = max_bytes
    for name in sorted(found, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if not left:
            return
        with found[name].open("rb") as file:
            text = file.read(left)
        digest = hashlib.sha256(text).digest()
        if text and digest not in contents:
            contents.add(digest)
            yield name, text
            left -= len(text)


def _by_file(taken: list[_Text]) -> _Parts | None:
    """Whole files: the first small ones to validation and test until each has its share; None where they cannot."""
    share = sum(len(text) for _, text in taken) / HELD_OUT
    parts: _Parts = {"train": [], "validation": [], "test": []}
    held: dict[Split, int] = {"validation": 0, "test": 0}
    for name, text in taken:
        open_part = next((split for split, size in held.items() if size < share), None)
        if open_part is None or len(text) > share:  # a file above the share would make a part far too large
            parts["train"].append((name, text))
        else:
            parts[open_part].append((name, text))
            held[open_part] += len(text)
    return parts if min(held.values()) >= share and parts["train"] else None


def _by_region(taken: list[_Text]) -> _Parts:
    """Each file in three consecutive regions."""
    parts: _Parts = {"train": [], "validation": [], "test": []}
    for name, text in taken:
        first, second = (len(text) * (HELD_OUT - back) // HELD_OUT for back in (2, 1))
        for split, region in zip(parts, (text[:first], text[first:second], text[second:]), strict=True):
            if region:
                parts[split].append((name, region))
    return parts


def _joined(texts: Iterable[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(text + BOUNDARY for text in texts), dtype=np.uint8)
