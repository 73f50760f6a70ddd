"""Entries that stand in for a training. `engine_entries:BEHAVIOUR@FOLDER` names one; workers import this module.

Behaviours are joined by `+`; each is `name=seed` and applies to that seed's jobs (`name=seed.bias` to one bias only).
Every call is noted in FOLDER/calls as `bias seed pid`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from miras_search.engine.messages import Context, Row
from miras_search.training.job import Final, Outcome


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("cannot be rebuilt from its arguments")
        self.lock = threading.Lock()


def accuracy(job: Mapping[str, object]) -> float:
    """A number that depends on the job and on nothing else."""
    digest = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).digest()
    return digest[0] / 256


def __getattr__(name: str) -> Callable[[Sequence[Mapping[str, object]], Context], list[Outcome]]:
    behaviour, at, folder = name.partition("@")
    if not at:
        raise AttributeError(name)
    return lambda jobs, context: _run_all(jobs, context, behaviour, Path(folder))


def _run_all(jobs: Sequence[Mapping[str, object]], context: Context, behaviour: str, folder: Path) -> list[Outcome]:
    with (folder / "tasks").open("a") as file:
        file.write(" ".join(f"{_bias(job)}-{job['seed']}" for job in jobs) + "\n")
    if len(jobs) > 1 and behaviour == "oom_packed":
        raise OutOfMemoryError("CUDA out of memory")
    return [_run(job, context, behaviour, folder, i, len(jobs)) for i, job in enumerate(jobs)]


def _bias(job: Mapping[str, object]) -> str:
    design = job["design"]
    assert isinstance(design, dict)
    return "control" if "none" not in design["control"] else str(next(iter(design["bias"])))


def _run(job: Mapping[str, object], context: Context, behaviour: str, folder: Path, index: int, count: int) -> Outcome:
    def report(rows: list[Row]) -> None:
        context.report([rows if i == index else [] for i in range(count)])

    assert json.loads(json.dumps(job)) == job, "a job is JSON"
    assert not {"optuna", "sqlalchemy"} & sys.modules.keys(), "a worker opens no database"
    bias = _bias(job)
    calls = folder / "calls"
    with calls.open("a") as file:
        file.write(f"{bias} {job['seed']} {os.getpid()}\n")
    tries = sum(line.startswith(f"{bias} {job['seed']} ") for line in calls.read_text().splitlines())
    report([(10, "loss", "train", 2.0), (10, "accuracy", "validation", 0.25)])
    for part in behaviour.split("+"):
        what, _, where = part.partition("=")
        seed, _, only = where.partition(".")
        if seed == str(job["seed"]) and only in ("", bias):
            _misbehave(what, tries, folder)
            if what == "diverge":
                return Outcome("diverged", (Final("loss", "train", 9.0),), 7, 0.5, 100, "loss nan at step 8")
    if (path := context.checkpoints[index]) is not None:
        path.write_bytes(f"weights of {bias} {job['seed']}".encode())
    report([(20, "loss", "train", 1.0)])
    finals = (Final("accuracy", "test", accuracy(job)), Final("loss", "train", 1.0), Final("params", "", 12.0))
    return Outcome("complete", finals, 20, 0.5, 100)


def _misbehave(what: str, tries: int, folder: Path) -> None:
    if what == "kill" or (what == "kill_once" and tries == 1):
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "raise":
        raise Unpicklable(1, 2)
    if what == "oom" or (what == "oom_once" and tries == 1):
        raise OutOfMemoryError("CUDA out of memory")
    if what == "hang":
        threading.Event().wait()
    if what == "hang_once" and tries == 1:
        threading.Event().wait()
