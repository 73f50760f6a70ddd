"""A worker process of the local executor: `python -m miras_search.engine.worker DESCRIPTOR PARENT`.

It takes tasks from a socket, one at a time, and keeps what it has imported between them. It never opens the database.
It leaves at once when the driver is gone, however the driver ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection

from miras_search.engine.messages import Failed, Message, Task
from miras_search.engine.task import run_task

STOP = "stop"  # sent in place of a task
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(descriptor: int, parent: int) -> None:
    """Serve tasks from the socket until it closes."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # a batch system sends it to all: the driver decides what it means
        signal.signal(ignored, signal.SIG_IGN)
    _die_with(parent)
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    tasks: queue.SimpleQueue[tuple[int, Task]] = queue.SimpleQueue()
    stopping = threading.Event()
    threading.Thread(target=_receive, args=(connection, tasks, stopping), daemon=True).start()

    def send(messages: Sequence[Message]) -> bool:
        for message in messages:
            connection.send(message)
        return stopping.is_set()

    while True:
        ticket, task = tasks.get()
        ended = run_task(ticket, task, send)
        send(ended)
        if any(isinstance(end, Failed) for end in ended):
            return  # what raised may have left the process in a bad state, as a CUDA error does: others get a new one


def _receive(connection: Connection, tasks: queue.SimpleQueue[tuple[int, Task]], stopping: threading.Event) -> None:
    """Take tasks in, and `STOP`, beside the training; the end of the stream is the end of the driver."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            found = connection.recv()
            if found == STOP:
                stopping.set()
            else:
                tasks.put(found)
    os._exit(0)


def _die_with(parent: int) -> None:
    """Have Linux kill this process with its parent: a training that holds the interpreter sees no closed socket."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before the call
        os._exit(0)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the driver is gone
        main(int(sys.argv[1]), int(sys.argv[2]))
