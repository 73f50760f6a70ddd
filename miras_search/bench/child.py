"""Processes of their own, as a user starts them: a verb, or the driver of a long search, with what they cost.

`python -m miras_search.bench.child DB TRIALS EXECUTOR` is that driver; it prints its memory and CPU time as JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int = 0
    """Of a driver; 0 where it was not looked at."""


def verb(words: Sequence[str]) -> Cost:
    """Run a command line of miras-search. Raises RuntimeError where it fails."""
    wall, cpu, _ = _timed(["-m", "miras_search.cli", *words])
    return Cost(wall, cpu)


def driver(db: Path, trials: int, executor: str) -> Cost:
    """Take a filled search up and train so many trials in all, with jobs that take no time. Raises RuntimeError."""
    wall, _, told = _timed(["-m", "miras_search.bench.child", str(db), str(trials), executor])
    found = json.loads(told.splitlines()[-1])
    return Cost(wall, found["cpu_seconds"], found["peak_bytes"])


def _timed(words: Sequence[str]) -> tuple[float, float, str]:
    """Wall and CPU seconds of a Python process, and what it printed."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(words)}: {done.stderr[-2000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def peak_bytes() -> int:
    """The largest memory of this process so far; 0 where the system does not tell.

    Not `getrusage`: that remembers the memory of the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def main(db: str, trials: int, executor: str) -> None:
    """Be that driver."""
    from miras_search.bench import filled
    from miras_search.engine.driver import RunOptions, run_study
    from miras_search.store.database import Database

    options = RunOptions(executor=executor, workers=2, entry="miras_search.bench.trivial:instant")
    with Database.open(db) as database:
        run_study(filled.study(trials), database, options, lambda event: None)
    print(json.dumps({"cpu_seconds": time.process_time(), "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
