"""A verb, or the driver of a search, in a process of its own that tells what it cost: `python -m ... status NAME`.

Its last line on stderr is a JSON object: `cpu_seconds` of the process, `peak_bytes` of its memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DRIVE = "drive"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


def run(words: Sequence[str]) -> Cost:
    """Run a command line of miras-search in a new process. Raises RuntimeError where it fails."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "miras_search.bench.child", *words], capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"miras-search {' '.join(words)}: {done.stderr[-2000:]}")
    told = json.loads(done.stderr.splitlines()[-1])
    return Cost(wall, told["cpu_seconds"], told["peak_bytes"])


def drive(db: str, trials: int, executor: str) -> None:
    """Take a filled search up and train so many trials in all, with jobs that take no time."""
    from miras_search.bench import filled
    from miras_search.engine.driver import RunOptions, run_study
    from miras_search.store.database import Database

    options = RunOptions(executor=executor, workers=2, entry="miras_search.bench.trivial:instant")
    with Database.open(db) as database:
        run_study(filled.study(trials), database, options, lambda event: None)


def peak_bytes() -> int:
    """The largest memory of this process so far; 0 where the system does not tell.

    Not `getrusage`: it remembers the memory of the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def main(words: Sequence[str]) -> int:
    """Do what the words say, then tell the cost."""
    if words[:1] == [DRIVE]:
        drive(words[1], int(words[2]), words[3])
        code = 0
    else:
        from miras_search.cli import main as command

        code = command(words)
    sys.stderr.write(json.dumps({"cpu_seconds": time.process_time(), "peak_bytes": peak_bytes()}) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
