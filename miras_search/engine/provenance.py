"""Where a run's numbers come from: commit, versions, host, arguments. Stored once a run."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import miras_search
from miras_search.space.fields import Plain
from miras_search.space.plugins import Plugin

LIBRARIES = ("torch", "triton", "numpy", "optuna", "ray", "sqlalchemy")
GIT_SECONDS = 10.0
PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]*):[^/\s]*@")
PASSWORD_IN_QUERY = re.compile(r"([?&](?:password|passwd|sslpassword)=)[^&\s]*", re.IGNORECASE)


def provenance(plugins: Sequence[Plugin] = ()) -> dict[str, Plain]:
    """JSON data for `begin_run`. Versions come from the installed packages' metadata: nothing heavy is imported.

    The source of plugins is kept too, to be read: no other place is sure to have it once the file has changed.
    """
    package = Path(miras_search.__file__).resolve().parent
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "argv": [without_password(argument) for argument in sys.argv],
        "versions": dict(versions()),
        "package": _git(package),
        "folder": _git(Path.cwd()),
        "plugins": {one.name: {"path": one.path, "hash": one.digest, "source": one.source} for one in plugins},
    }


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that are installed."""
    found = {"python": platform.python_version(), "miras-search": miras_search.__version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def without_password(text: str) -> str:
    """The text with any password of a database address hidden."""
    return PASSWORD_IN_QUERY.sub(r"\1***", PASSWORD_IN_URL.sub(r"\1:***@", text))


def _git(folder: Path) -> dict[str, Plain] | None:
    """Commit of the checkout around `folder`, and a hash of what differs from it; None where there is no checkout."""
    commit = _ask(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    # what git does not know yet counts too: a new file changes what runs
    changes = (_ask(folder, "diff", "--no-ext-diff", "--no-textconv", "HEAD") or b"") + (
        _ask(folder, "status", "--porcelain") or b""
    )
    dirty = hashlib.sha256(changes).hexdigest() if changes.strip() else None
    return {"commit": commit.decode().strip(), "dirty": dirty}


def _ask(folder: Path, *arguments: str) -> bytes | None:
    """What git says, or None where it is not installed, fails or takes too long."""
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_SECONDS, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
