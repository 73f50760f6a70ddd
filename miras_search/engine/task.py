"""Running one task inside a worker process, the same for every executor.

Whatever a job raises becomes a `Failed` message with its traceback as text: an exception that cannot be pickled must
not take the worker down with it.
"""

from __future__ import annotations

import importlib
import os
import platform
import secrets
import socket
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import miras_search
from miras_search.engine.messages import Context, Entry, Failed, Finished, Message, Points, Row, Started, Task
from miras_search.space import plugins

TEXT_LIMIT = 20_000  # characters of a traceback; its end is the part that tells


@cache
def versions() -> dict[str, str]:
    """What decides the numbers of a training here; a worker whose versions differ from the driver's is refused."""
    found = {"python": platform.python_version(), "miras-search": miras_search.__version__}
    for name in ("torch", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def load(entry: str) -> Entry:
    """The function of a `module:function` name. Raises ImportError or AttributeError."""
    module, _, name = entry.partition(":")
    function: Entry = getattr(importlib.import_module(module), name)
    return function


def run_task(ticket: int, task: Task, send: Callable[[Message], bool]) -> Finished | Failed:
    """Run a task, sending `Started` and `Points` on the way; returns how it ended. `send` returns whether to stop."""
    send(Started(ticket, socket.gethostname(), os.getpid(), task.device, versions()))

    def report(rows: Sequence[Row]) -> bool:
        return send(Points(ticket, tuple(rows)))

    # the parameters travel as bytes: a worker on another machine has no folder in common with the driver. Nothing is
    # made here before the training is done, so a worker that is killed leaves nothing behind.
    path = Path(tempfile.gettempdir(), f"miras-search-{secrets.token_hex(8)}.safetensors") if task.checkpoint else None
    try:
        plugins.use(task.plugins)
        outcome = load(task.entry)(task.job, Context(report, path, task.device, task.threads))
        return Finished(ticket, outcome, path.read_bytes() if path is not None and path.exists() else None)
    except Exception as error:  # the process boundary: every kind of failure becomes a row
        text = traceback.format_exc()[-TEXT_LIMIT:]
        return Failed(ticket, "oom" if _out_of_memory(error) else "failed", type(error).__name__, text)
    finally:
        if path is not None:
            path.unlink(missing_ok=True)


def _out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. By name: `torch.OutOfMemoryError` must not cost an import of torch."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
