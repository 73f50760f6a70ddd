"""Writing a file whole: a reader, and a disk that fills up, meet the file of before or the new one."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """Write `data` to `path`, which may be a link to a file elsewhere; a file that was there keeps its mode.

    Raises OSError, and leaves what was there.
    """
    if path.exists() and not path.is_file():  # a pipe or a terminal, which cannot be replaced
        path.write_bytes(data)
        return
    target = path.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
