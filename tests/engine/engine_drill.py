"""A study under random faults: workers, nodes, the driver and the disk let it down, and what it finds stays the same.

    python tests/engine/engine_drill.py --jobs 60 --faults 30 --seed 0

First the study runs undisturbed, then again with faults at random, all before its last fifth; the driver is started
again whenever it has ended. With Ray there are two simulated nodes, one of which can be lost. Every job is a check, and
so is what must hold at the end; the last line counts them. Numbers are compared bit for bit, those of time and memory
apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import select
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from miras_search.store import queries
from miras_search.store.database import Database

if TYPE_CHECKING:
    from ray._private.node import Node

STUDY = """\
name: drill
task: {{name: mqar, vocab: 16, length: 16, pairs: 2}}
model: {{layers: 1, d_model: 8, heads: 1}}
train: {{steps: {steps}, batch: 2, eval_examples: 8, eval_every: {every}}}
base: delta_net
vary: {{train.lr: {rates}}}
seeds: {seeds}
resources: {{save_every: 0.2 s}}
"""
MARK = "MIRAS_DRILL"  # in the environment of every process that the drill starts
DISK = 65536  # bytes that a file may have on a full disk: less than the database has, more than the log
SILENCE = 180.0  # seconds without an event after which the driver counts as hanging
LEFTOVERS = 90.0  # seconds after which no process may be left
TIMED = {"tokens_per_second", "peak_memory_bytes", "wall_seconds"}
ENDS = {0, 1, 3, 130, -signal.SIGKILL}  # exit codes that a driver may have


class Nodes(Protocol):
    """Where the driver's trainings run."""

    arguments: list[str]

    def lose_one(self) -> None:
        """Remove a node without a word, and add another."""

    def close(self) -> None:
        """End all of it."""


class Here:
    """Worker processes of the driver itself."""

    def __init__(self) -> None:
        self.arguments = ["--executor", "local", "--workers", "2"]

    def lose_one(self) -> None:
        raise RuntimeError("there is one node only")

    def close(self) -> None:
        return None


class TwoNodes:
    """Two raylets on this machine, of a core each; the driver's is never lost."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        import miras_search.engine.ray_  # noqa: F401 - sets Ray's environment

        self._sizes = {"num_cpus": 1, "object_store_memory": 80 * 1024**2}
        self._cluster = Cluster(initialize_head=True, head_node_args={**self._sizes, "include_dashboard": False})
        self._second = self._another()
        self.arguments = ["--executor", "ray", "--address", self._cluster.address, "--workers", "2"]

    def lose_one(self) -> None:
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = self._another()

    def _another(self) -> Node:
        """A new node. Ray gives it half a minute to come up, which is too little where the machine is busy."""
        for _ in range(4):
            before = _children()
            try:
                return self._cluster.add_node(**self._sizes)
            except Exception as error:  # Ray raises a bare one
                _say(f"a node is tried again: {error}")
                for pid in _children() - before:
                    os.kill(pid, signal.SIGKILL)
        return self._cluster.add_node(**self._sizes)

    def close(self) -> None:
        self._cluster.shutdown()


class Driver:
    """One run of the command line, whose events are read as they come."""

    def __init__(self, folder: Path, nodes: Nodes, database: str) -> None:
        self._errors = (folder / "stderr").open("a+")
        command = [sys.executable, "-m", "miras_search.cli", "run", "drill.yaml", "--db", database, "--json"]
        self.process = subprocess.Popen(
            [*command, *nodes.arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )

    def events(self) -> Iterator[str]:
        """Names of events until the driver has ended. Raises TimeoutError when none comes any more."""
        assert self.process.stdout is not None
        pipe, rest = self.process.stdout.fileno(), b""
        while True:
            if not select.select([pipe], [], [], SILENCE)[0]:
                self.process.kill()
                raise TimeoutError(f"the driver has said nothing for {SILENCE:g} s")
            found = os.read(pipe, 65536)
            if not found:
                break
            *lines, rest = (rest + found).split(b"\n")
            yield from (json.loads(line)["event"] for line in lines)
        self.process.wait()
        self._errors.close()


class Drill:
    """A study, its faults, and what was found wrong in the end."""

    def __init__(self, folder: Path, *, jobs: int, faults: int, seed: int, ray: bool, steps: int, lock: float) -> None:
        cells = 10 if jobs >= 20 else 2
        rates = [round(1e-3 * cell, 4) for cell in range(1, cells)]  # beside the base's 1e-2
        text = STUDY.format(steps=steps, every=steps // 2, rates=rates, seeds=jobs // cells)
        (folder / "drill.yaml").write_text(text)
        self.folder, self.jobs, self.lock = folder, jobs // cells * cells, lock
        self.random = random.Random(seed)
        self.mark = os.environ[MARK] = uuid.uuid4().hex
        self.nodes: Nodes = TwoNodes() if ray else Here()
        kinds: list[Callable[[Driver], None]] = [
            self._kill_worker, self._kill_driver, self._terminate, self._interrupt, self._lock_database, self._fill_disk
        ]  # fmt: skip
        if ray:
            kinds.append(self._lose_node)
        times = -(-faults // len(kinds))
        self.faults = self.random.sample(kinds * times, faults)  # each kind nearly equally often
        self.due = sorted((self.random.uniform(0, 0.8 * self.jobs) for _ in self.faults), reverse=True)
        self.through = 0  # jobs; the next fault is the last, and waits for as many of them as `due` ends with
        self.done: Counter[str] = Counter()
        self.ends: list[int] = []
        self.locks: list[threading.Thread] = []

    def go(self) -> list[tuple[bool, str]]:
        """Run it; each check with whether it holds."""
        try:
            undisturbed = Driver(self.folder, self.nodes, "undisturbed.db")
            list(undisturbed.events())
            _say("the undisturbed run has ended")
            while not self.ends or self.ends[-1] not in (0, 1):
                self._drive()
            for lock in self.locks:
                lock.join()
        finally:
            self.nodes.close()
        return [*self._jobs(), *self._end(undisturbed.process.returncode)]

    def _drive(self) -> None:
        """One driver, from its start to its end."""
        driver = Driver(self.folder, self.nodes, "drill.db")
        patience = self.random.randint(1, 3)
        for event in driver.events():
            if event not in ("job_started", "progress", "job_finished"):
                continue
            self.through += event == "job_finished"
            patience -= 1
            if self.faults and patience <= 0 and self.due[-1] <= self.through:
                self.due.pop()
                fault = self.faults.pop()
                name = fault.__name__.strip("_").replace("_", " ")
                self.done[name] += 1
                _say(f"{name} ({len(self.faults)} to come)")
                fault(driver)
                patience = self.random.randint(1, 3)
        self.ends.append(driver.process.returncode)
        _say(f"the driver ended with {self.ends[-1]}")
        if self.ends[-1] not in ENDS or len(self.ends) > 20 * (sum(self.done.values()) + 1):
            raise RuntimeError(
                f"the driver ended with {self.ends[-1]}:\n{(self.folder / 'stderr').read_text()[-3000:]}"
            )

    def _kill_worker(self, driver: Driver) -> None:
        with contextlib.closing(sqlite3.connect(self.folder / "drill.db")) as db:
            pids = [pid for (pid,) in db.execute("SELECT pid FROM ms_attempt WHERE state = 'running' AND pid > 0")]
        if pids:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(self.random.choice(sorted(pids)), signal.SIGKILL)

    def _lose_node(self, driver: Driver) -> None:
        self.nodes.lose_one()

    def _kill_driver(self, driver: Driver) -> None:
        driver.process.kill()

    def _terminate(self, driver: Driver) -> None:
        driver.process.terminate()

    def _interrupt(self, driver: Driver) -> None:
        driver.process.send_signal(signal.SIGINT)

    def _lock_database(self, driver: Driver) -> None:
        """Hold the write lock for a while, as a careless tool would."""

        def hold() -> None:
            db = sqlite3.connect(self.folder / "drill.db", timeout=30)
            db.execute("BEGIN IMMEDIATE")
            threading.Event().wait(self.lock)
            db.rollback()
            db.close()

        self.locks.append(threading.Thread(target=hold))
        self.locks[-1].start()

    def _fill_disk(self, driver: Driver) -> None:
        """No file of the driver may grow any more, which it sees as a write that fails."""
        _, most = resource.prlimit(driver.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(driver.process.pid, resource.RLIMIT_FSIZE, (DISK, most))

    def _found(self, name: str) -> dict[tuple[str, int], tuple[str, object, object]]:
        """By cell and seed: the state, the finals that are no speeds, and the curves."""
        with Database.open(str(self.folder / name), read_only=True) as db:
            study = queries.study(db, "drill")
            curves: dict[tuple[str, int], list[tuple[str, str, int, float]]] = {}
            for metric, split in queries.curve_names(db, study.id):
                for point in queries.curves(db, study.id, metric, split):
                    curves.setdefault((point.cell, point.seed), []).append((metric, split, point.step, point.value))
            return {
                (row.cell, row.seed): (
                    row.state,
                    {key: value for key, value in row.values.items() if key[0] not in TIMED},
                    curves.get((row.cell, row.seed)),
                )
                for row in queries.results(db, study.id)
            }

    def _jobs(self) -> Iterator[tuple[bool, str]]:
        """Every job is complete once with the undisturbed numbers, or failed with its reason."""
        expected, found = self._found("undisturbed.db"), self._found("drill.db")
        with Database.open(str(self.folder / "drill.db"), read_only=True) as db:
            study = queries.study(db, "drill").id
            jobs = {(row.cell, row.seed): row.id for row in queries.jobs(db, study)}
            attempts = queries.attempts(db, study)
        for (cell, seed), (state, finals, curves) in found.items():
            mine = [row for row in attempts if row.job_id == jobs[cell, seed]]
            ended = Counter(row.state for row in mine)
            if state == "failed":
                reason = mine[-1].error_text or ""
                yield bool(reason) and not ended["complete"], f"{cell}, seed {seed}: failed: {reason[:80]}"
                continue
            same = (state, finals, curves) == expected[cell, seed]
            tries = ", ".join(f"{count} {name}" for name, count in sorted(ended.items()))
            yield same and ended["complete"] == 1 and not ended["running"], f"{cell}, seed {seed}: {state} ({tries})"

    def _end(self, undisturbed: int) -> Iterator[tuple[bool, str]]:
        """What must hold beside the jobs."""
        said = (self.folder / "stderr").read_text()
        told = ", ".join(f"{count} {name}" for name, count in sorted(self.done.items()))
        yield undisturbed == 0, "the undisturbed run ended well"
        yield len(self._found("drill.db")) == self.jobs, f"{self.jobs} jobs are on record"
        yield not self.faults, f"faults: {told}; driver ended with {dict(Counter(self.ends))}"
        yield "Traceback" not in said, "every end of the driver was told in words"
        db = sqlite3.connect(self.folder / "drill.db", timeout=0, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        held = db.execute("SELECT count(*) FROM ms_run WHERE status = 'running'").fetchone()[0]
        whole = db.execute("PRAGMA integrity_check").fetchone()[0]
        db.close()
        yield (held, whole) == (0, "ok"), f"no lock is left, the database is whole ({whole})"
        left = self._leftovers()
        yield not left, f"no process is left{': ' + '; '.join(left) if left else ''}"
        snapshots = list((self.folder / "checkpoints").rglob("*.snapshot"))
        yield not snapshots, "no snapshot of an ended job is left"

    def _leftovers(self) -> list[str]:
        """Command lines of processes of this drill that are still there after `LEFTOVERS` seconds."""
        until = time.monotonic() + LEFTOVERS
        while (left := _marked(self.mark)) and time.monotonic() < until:
            handle = os.pidfd_open(next(iter(left)))
            with open(handle, "rb"):
                select.select([handle], [], [], min(1.0, until - time.monotonic()))
        return list(left.values())


def _children() -> set[int]:
    """The processes that this one has started."""
    return {int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


def _say(text: str) -> None:
    """What happens when, for who watches."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _marked(mark: str) -> dict[int, str]:
    """The other processes with that mark in their environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            if pid != os.getpid() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found[pid] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
        except OSError:  # it has ended, or is another user's
            continue
    return {pid: words for pid, words in found.items() if words}  # a zombie has no command line


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a study under random faults and check what it finds.")
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=50, help="of each training")
    parser.add_argument("--lock", type=float, default=20.0, help="seconds that the database is locked")
    parser.add_argument("--local", action="store_true", help="worker processes instead of two Ray nodes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="miras-drill-") as folder:
        drill = Drill(
            Path(folder), jobs=given.jobs, faults=given.faults, seed=given.seed, ray=not given.local, steps=given.steps,
            lock=given.lock,
        )  # fmt: skip
        checks = drill.go()
    for good, text in checks:
        print(f"{'ok  ' if good else 'FAIL'} {text}")
    failed = sum(not good for good, _ in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
