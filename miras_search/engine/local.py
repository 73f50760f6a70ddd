"""The local executor: worker processes on this machine, started when they are first needed and used again.

Workers are fresh interpreters (never forked: torch, OpenMP and CUDA do not survive a fork) in a session of their own,
so that a Ctrl-C at the terminal reaches the driver only. POSIX only: each worker talks over an inherited socket.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import BinaryIO

from miras_search.engine.messages import Failed, Finished, Message, Stopped, Task
from miras_search.engine.worker import STOP

TAIL = 4000  # bytes of a dead worker's output that are kept as its error text
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(eq=False, slots=True)
class _Worker:
    """A worker process and this end of its socket."""

    process: subprocess.Popen[bytes]
    connection: Connection
    output: BinaryIO  # what it prints; unlinked, so it is gone with the driver
    devices: str
    tickets: set[int] = field(default_factory=set)  # of its task's jobs that have not ended
    failed: bool = False

    def end(self) -> None:
        """Kill the process and wait for it."""
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.output.close()


class LocalExecutor:
    """At most `slots` worker processes with `threads` threads each.

    `devices[i]` is the CUDA_VISIBLE_DEVICES of slot i; empty for training on the CPU.
    """

    name = "local"

    def __init__(self, slots: int, *, threads: int, devices: Sequence[str] = ()) -> None:
        if slots < 1:
            raise ValueError(f"slots: {slots}: a local executor needs at least one")
        self.slots = slots
        self._threads = threads
        self._devices = tuple(devices) or ("",) * slots
        self._workers: list[_Worker] = []

    def submit(self, ticket: int, task: Task, *, whole_device: bool = False) -> None:
        """Hand the task to an idle worker, or to a new one. The driver leaves the others empty for `whole_device`."""
        for worker in [worker for worker in self._workers if not worker.tickets]:
            try:
                self._hand_over(worker, ticket, task)
            except OSError:  # it died while it was idle
                self._drop(worker)
            else:
                return
        if len(self._workers) >= self.slots:
            raise RuntimeError(f"all {self.slots} slots are busy")
        worker = self._start()
        with contextlib.suppress(OSError):  # it died at once: poll finds its end, with what it printed
            self._hand_over(worker, ticket, task)

    def poll(self, timeout: float) -> list[Message]:
        """What the workers have sent; the death of a busy one is a `Failed` with state `lost` for each of its jobs."""
        by_connection = {worker.connection: worker for worker in self._workers}
        messages: list[Message] = []
        for connection in wait(list(by_connection), timeout) if by_connection else ():
            assert isinstance(connection, Connection)
            messages += self._read(by_connection[connection])
        return messages

    def stop(self) -> None:
        """Tell every worker to stop; it is asked after each step or half second."""
        for worker in self._workers:
            with contextlib.suppress(OSError):  # it is dead: poll finds out
                worker.connection.send(STOP)

    def kill(self, ticket: int) -> None:
        """Kill the worker of the task that goes by this ticket."""
        for worker in self._workers:
            if ticket in worker.tickets:
                self._drop(worker)
                return

    def close(self) -> None:
        """Kill every worker: what an unfinished training has found is not wanted, and files are written atomically."""
        for worker in self._workers:
            worker.process.kill()  # all first, so that the waiting below overlaps
        for worker in tuple(self._workers):
            self._drop(worker)

    def _start(self) -> _Worker:
        mine, theirs = socket.socketpair()
        in_use = [worker.devices for worker in self._workers]
        free = list(self._devices)
        for devices in in_use:
            free.remove(devices)
        output = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115 - closed with the worker
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "miras_search.engine.worker", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                env=self._environment(free[0]),
                start_new_session=True,
            )
        worker = _Worker(process, Connection(mine.detach()), output, free[0])
        self._workers.append(worker)
        return worker

    def _environment(self, devices: str) -> Mapping[str, str]:
        # a worker imports what the driver does, and (-P) nothing that happens to lie in the working directory
        paths = [path or os.getcwd() for path in sys.path]
        threads = dict.fromkeys(THREAD_VARIABLES, str(self._threads))
        return os.environ | threads | {"PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": devices}

    def _hand_over(self, worker: _Worker, ticket: int, task: Task) -> None:
        worker.tickets = set(range(ticket, ticket + len(task.jobs)))
        worker.output.truncate(0)
        worker.connection.send((ticket, task))

    def _read(self, worker: _Worker) -> list[Message]:
        messages: list[Message] = []
        try:
            while worker.connection.poll():
                message: Message = worker.connection.recv()
                messages.append(message)
                if isinstance(message, Finished | Stopped | Failed):
                    worker.tickets.discard(message.ticket)
                worker.failed |= isinstance(message, Failed)
                if worker.failed and not worker.tickets:  # it leaves by itself; it must get no further task
                    self._drop(worker)
                    break
        except (EOFError, OSError):
            if worker.tickets:
                messages += _obituary(worker)
            self._drop(worker)
        return messages

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.end()


def _obituary(worker: _Worker) -> list[Failed]:
    """Why a worker died, as far as anyone can tell, for each of its jobs."""
    try:
        code = worker.process.wait(timeout=2)
    except subprocess.TimeoutExpired:  # it closed its socket and hangs in its own exit
        worker.process.kill()
        code = worker.process.wait()
    cause = f"exit code {code}"
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        cause = name + (" (killed from outside, perhaps because memory ran out)" if -code == signal.SIGKILL else "")
    size = worker.output.seek(0, os.SEEK_END)
    worker.output.seek(max(0, size - TAIL))
    said = worker.output.read().decode(errors="replace").strip()
    text = f"worker process {worker.process.pid} died: {cause}"
    text = f"{text}\n{said}" if said else text
    return [Failed(ticket, "lost", "WorkerDied", text) for ticket in sorted(worker.tickets)]
