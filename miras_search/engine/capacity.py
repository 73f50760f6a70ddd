"""How many jobs run at once, where, and which executor that calls for."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from miras_search.engine.local import LocalExecutor
from miras_search.engine.messages import Executor
from miras_search.errors import EnvironmentProblem, MirasError

log = logging.getLogger(__name__)

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")
KNOCK_SECONDS = 10.0
EXECUTORS = ("auto", "local", "ray")


def cpu_count(quota: Path = CGROUP_CPU) -> int:
    """Cores this process may use: its affinity, and a container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = quota.read_text().split()
        cores = min(cores, int(limit) // int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        pass
    return max(1, cores)


def visible_gpus() -> list[str]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them, found without a CUDA context in the driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name and name != "-1"]
    return [str(index) for index in range(_installed_gpus())]


@functools.cache
def _installed_gpus() -> int:
    """As the driver's own tool lists them, which may take it seconds."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def local_slots(cpus: int, gpus: float, workers: int | None) -> tuple[int, list[str]]:
    """How many jobs of `cpus` cores and `gpus` GPUs run here at once, and each slot's CUDA_VISIBLE_DEVICES.

    A fraction of a GPU shares it; `workers` may ask for more than there are cores. Raises EnvironmentProblem when there
    is not even room for one.
    """
    slots = max(1, cpu_count() // cpus)
    if not gpus:
        return workers or slots, []
    devices = visible_gpus()
    per_slot = (
        [[device] for device in devices for _ in range(int(1 / gpus + 1e-9))]
        if gpus < 1
        else [devices[first : first + int(gpus)] for first in range(0, len(devices) - int(gpus) + 1, int(gpus))]
    )
    if not per_slot:
        shown = len(devices) or "none"
        raise EnvironmentProblem(f"resources.gpus: {gpus:g} a job, and this machine shows {shown}: change `resources`")
    slots = min(workers or slots, len(per_slot))
    return slots, [",".join(names) for names in per_slot[:slots]]


def check_executor(kind: str, workers: int | None) -> None:
    """Raise MirasError for a name that is none, and for a number of workers that is none."""
    if kind not in EXECUTORS:
        raise MirasError(f"executor: unknown executor {kind!r}: take {', '.join(EXECUTORS)}")
    check_count("workers", workers, 1, 1024)


def check_count(name: str, value: object, fewest: int, most: int = 2**31 - 1) -> None:
    """Raise MirasError for what is neither None nor a whole number from `fewest` to `most`."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not fewest <= value <= most):
        raise MirasError(f"{name}: {value!r} is no whole number from {fewest} to {most}")


def check_room(kind: str, *, cpus: int, gpus: float, workers: int | None = None, address: str | None = None) -> None:
    """Raise what `make_executor` would, as far as it can be known without Ray.

    MirasError for names and numbers that fit nothing, EnvironmentProblem where there is no GPU for a job here, no Ray,
    or nobody at the cluster's address: Ray itself would try for minutes.
    """
    check_executor(kind, workers)
    if kind == "local" and address is not None:
        raise MirasError(f"address: {address!r} names a Ray cluster: use it with --executor ray")
    if gpus > 1 and gpus != int(gpus):
        raise MirasError(f"resources.gpus: {gpus:g}: a fraction of one GPU, or whole GPUs")
    if kind == "ray" and importlib.util.find_spec("ray") is None:
        raise EnvironmentProblem("ray: not installed: pip install ray, or take --executor local")
    if address is not None:
        _knock(address)
    elif kind != "ray" or "ray" not in sys.modules:  # one that runs in this process may have been given other GPUs
        local_slots(cpus, gpus, workers)


def _knock(address: str) -> None:
    """Raise EnvironmentProblem where nobody listens at HOST:PORT. Other forms, as `auto`, are Ray's to read."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isascii() and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:  # ValueError: no name of a host
        reason = getattr(error, "strerror", None) or error
        raise EnvironmentProblem(
            f"ray: the cluster at {address!r} was not joined: {reason}: start one there (ray start --head), or take "
            f"--executor local"
        ) from error


def make_executor(
    kind: str,
    *,
    jobs: int,
    cpus: int,
    gpus: float,
    workers: int | None = None,
    address: str | None = None,
    starting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Executor:
    """The executor for `jobs` jobs. `auto` takes Ray when more than one can run at once and Ray is installed.

    Starting Ray costs seconds and most of a gigabyte, which a single job at a time does not repay; `starting()` is open
    meanwhile. Raises MirasError for an unknown name, EnvironmentProblem when there is no room or no Ray.
    """
    check_room(kind, cpus=cpus, gpus=gpus, workers=workers, address=address)
    if kind == "ray" or address is not None:
        return _ray(workers, cpus, gpus, address, starting)
    if cpus > (cores := cpu_count()):
        log.warning("resources.cpus: %d: this machine has %d: the threads of a job share them", cpus, cores)
    slots, devices = local_slots(cpus, gpus, workers)
    has_ray = importlib.util.find_spec("ray") is not None
    if kind == "auto" and has_ray and min(slots, jobs) > 1:
        try:
            return _ray(slots, cpus, gpus, None, starting)
        except EnvironmentProblem as error:
            log.warning("%s; the local executor is used instead", error)
    return LocalExecutor(slots, threads=cpus, devices=devices)


def _ray(
    slots: int | None,
    cpus: int,
    gpus: float,
    address: str | None,
    starting: Callable[[], AbstractContextManager[None]],
) -> Executor:
    from miras_search.engine.ray_ import RayExecutor  # imports ray, which `status` and the local executor need not pay

    with starting():
        return RayExecutor(slots, cpus=cpus, gpus=gpus, address=address)
