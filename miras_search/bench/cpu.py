"""CPU time of a process and of all that it has started, from /proc: what a driver and its Ray cost together."""

from __future__ import annotations

import os
from pathlib import Path


def tree_seconds(root: int | None = None, proc: Path = Path("/proc")) -> float:
    """CPU seconds so far of process `root` (this one) and of those below it that are alive; 0 without a /proc."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    tick = os.sysconf("SC_CLK_TCK")
    for file in proc.glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        pid = int(file.parent.name)
        parents[pid] = int(fields[1])
        seconds[pid] = (int(fields[11]) + int(fields[12])) / tick
    wanted = {os.getpid() if root is None else root}
    found = wanted & seconds.keys()
    while wanted:
        found |= wanted
        wanted = {pid for pid, parent in parents.items() if parent in wanted} - found
    return sum(seconds.get(pid, 0.0) for pid in found)
