"""The Ray executor: the same tasks on the cores and GPUs of this machine, or of a cluster that is named explicitly.

A cluster is never joined by accident: without an address a new local Ray is started, whatever RAY_ADDRESS says. A Ray
that runs in this process already is used and left running.

The machines of a cluster that is joined here need no files in common: this package travels to them with the run (a Ray
that ran in this process before has its own `runtime_env`), plugins with each task, and what is found comes back as
messages. They do need the libraries, of the driver's versions.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from typing import Any, Literal

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_enable_metrics_collection", "0")
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_LOG_MONITOR_MANY_FILES_THRESHOLD", "0")  # it looks for new files ten times a second else,
os.environ.setdefault("LOG_NAME_UPDATE_INTERVAL_S", "60")  # and no log is shown here
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # workers use this interpreter, under `uv run` too

import ray
from ray import ObjectRef, exceptions
from ray._private import worker as ray_worker
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import miras_search
from miras_search.engine.messages import Failed, Message, Task
from miras_search.engine.ray_tasks import End, Mailbox, run_fresh, run_reused
from miras_search.errors import EnvironmentProblem

OBJECT_STORE_BYTES = 80 * 1024**2  # Ray's minimum: only checkpoints of small models pass through it
# the driver's code, whatever else a machine has installed under that name: numbers must not depend on where a job ran.
# A checkout at the very path of the driver's working directory comes before it, though: Ray puts that path first.
CODE = {"py_modules": [miras_search], "excludes": ["__pycache__"]}


class RayExecutor:
    """Runs tasks of `cpus` cores and `gpus` GPUs (a fraction shares one) on Ray.

    Raises EnvironmentProblem when Ray cannot be reached or has no room for a single task.
    """

    name = "ray"

    def __init__(self, slots: int | None, *, cpus: int, gpus: float, address: str | None = None) -> None:
        self._cpus, self._gpus = cpus, gpus
        self._owned = not ray.is_initialized()
        self._refs: dict[ObjectRef[list[End]], range] = {}  # the tickets of each task
        try:
            if self._owned:
                _connect(address, None if slots is None else slots * cpus)
            self.slots = _room(cpus, gpus, slots)
            self._function = run_fresh if gpus and _resources().get("GPU", 0) > 1 else run_reused
            self._mailbox = _start_mailbox()
            self._drained()  # up before the first task, so that its start is not measured as work
        except BaseException:
            self._leave()
            raise

    def submit(self, ticket: int, task: Task, *, whole_device: bool = False) -> None:
        """Hand the task to Ray."""
        gpus = max(1.0, self._gpus) if whole_device and self._gpus else self._gpus
        remote = self._function.options(num_cpus=self._cpus, num_gpus=gpus, name=f"miras-search {ticket}")
        self._refs[remote.remote(ticket, task, self._mailbox)] = range(ticket, ticket + len(task.jobs))

    def poll(self, timeout: float) -> list[Message]:
        """What the tasks have sent; the death of a worker or node is a `Failed` with state `lost` or `oom`."""
        ready: list[ObjectRef[list[End]]] = []
        if self._refs:
            ray.wait(list(self._refs), num_returns=1, timeout=timeout)
            ready, _ = ray.wait(list(self._refs), num_returns=len(self._refs), timeout=0)
        messages = self._drained()  # after the wait: points before the end
        explained = {message.ticket for message in messages if isinstance(message, Failed)}
        for ref in ready:
            if self._refs[ref][0] not in explained:
                messages += _ends(ref, self._refs[ref])
        # a task that said why it failed is through, though its process may need a moment to go
        gone = {*ready, *(ref for ref, tickets in self._refs.items() if tickets[0] in explained)}
        self._refs = {ref: tickets for ref, tickets in self._refs.items() if ref not in gone}
        return messages

    def _drained(self) -> list[Message]:
        try:
            messages: list[Message] = ray.get(self._mailbox.drain.remote())
        except exceptions.RayError as error:  # the mailbox lives where the driver does: that node is gone, or Ray is
            reason = " ".join(str(error).split())[:300]
            raise EnvironmentProblem(f"ray: lost the cluster: {reason}: run the same again") from error
        return messages

    def stop(self) -> None:
        """Tell every task to stop; it is asked after each step or half second."""
        self._mailbox.stop.remote()

    def kill(self, ticket: int) -> None:
        """Kill the worker of the task that goes by this ticket."""
        for ref, tickets in list(self._refs.items()):
            if ticket in tickets:
                del self._refs[ref]
                ray.cancel(ref, force=True, recursive=False)

    def close(self) -> None:
        """Kill the running tasks; stop Ray if it was started here."""
        if not ray.is_initialized():
            return
        for ref in self._refs:
            ray.cancel(ref, force=True, recursive=False)
        self._refs.clear()
        with contextlib.suppress(exceptions.RayError):  # it may be gone already
            ray.kill(self._mailbox)
        self._leave()

    def _leave(self) -> None:
        if self._owned:
            ray.shutdown()


def _connect(address: str | None, cpus: int | None) -> None:
    """Start a quiet local Ray, or join the cluster at `address`."""
    # Ray announces a dead worker on stdout, where results go, and has no public switch for it; here a death is a row
    ray_worker._worker_logs_enabled = False
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
            )
        else:
            # a copy: Ray writes its own addresses into what it is given
            ray.init(address=address, runtime_env=dict(CODE), log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of any class: one that is too slow to start on a busy machine is a bare Exception
        place = "a local Ray could not be started" if address is None else f"the cluster at {address!r} was not joined"
        reason = " ".join(str(error).split())[:300]
        raise EnvironmentProblem(f"ray: {place}: {reason}: try --executor local") from error


def _start_mailbox() -> Any:
    """The mailbox actor's handle, whose methods Ray types as uncallable. On this node: others may be lost."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()


def _room(cpus: int, gpus: float, wanted: int | None) -> int:
    """How many tasks run at once. Raises EnvironmentProblem when not even one does."""
    total = _resources()
    room = int(total.get("CPU", 0) / cpus)
    if gpus:
        room = min(room, int(total.get("GPU", 0) / gpus + 1e-9))
    if room < 1:
        has = f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"
        raise EnvironmentProblem(f"ray: a job wants {cpus} CPUs and {gpus:g} GPUs, Ray has {has}: change `resources`")
    return room if wanted is None else min(room, wanted)


def _resources() -> dict[str, float]:
    """What Ray has in all."""
    found: dict[str, float] = ray.cluster_resources()
    return found


def _ends(ref: ObjectRef[list[End]], tickets: range) -> Sequence[Message]:
    """How the jobs of a task ended that said nothing itself."""
    state: Literal["oom", "failed", "lost"]
    cause: exceptions.RayError
    try:
        return ray.get(ref)
    except exceptions.OutOfMemoryError as error:
        state, cause = "oom", error
    except exceptions.RayTaskError as error:  # our own wrapper raised: the package is missing there, or another version
        state, cause = "failed", error
    except exceptions.RayError as error:
        state, cause = "lost", error
    return [Failed(ticket, state, type(cause).__name__, str(cause)) for ticket in tickets]
