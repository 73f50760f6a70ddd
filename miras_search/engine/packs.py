"""Which waiting jobs go to a worker together: the next one, and up to `pack` - 1 later ones of its shape.

A pack that ends badly is tried again in halves, down to single jobs: memory that was too small is then enough, and a
job that takes its worker down is found without a guess at which of them it was. One that raised is taken apart at once,
for it would raise again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Literal

from miras_search.engine.jobs import job_of
from miras_search.store.types import JobRow
from miras_search.study.schema import Resources
from miras_search.study.study import Study
from miras_search.training.shape import shape, unpackable

AUTO_ON_GPU = 16  # jobs; a GPU is then still far from full with models of this size


def pack_size(resources: Resources) -> int:
    """How many jobs of one shape are trained in a process at most; 1 means that nothing is packed."""
    if resources.pack != "auto":
        return resources.pack
    return AUTO_ON_GPU if resources.gpus else 1  # a CPU core is busy with a single model already


class Packs:
    """The jobs that wait, in order, and how they are put together."""

    def __init__(self, study: Study, size: int) -> None:
        self._study, self._size = study, size
        self._queue: deque[JobRow] = deque()
        self._limits: dict[int, int] = {}  # by job, once a pack with it has failed
        self._shapes: dict[tuple[int, str], str] = {}  # by trial and task; empty where there is no mate
        self._waiting: Counter[tuple[str, int]] = Counter()  # by shape and limit

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def first(self) -> JobRow:
        """The job that comes next."""
        return self._queue[0]

    def put(self, jobs: Sequence[JobRow]) -> None:
        """Add jobs at the end."""
        self._queue.extend(jobs)
        self._waiting.update(map(self._kind, jobs))

    def put_back(self, job: JobRow) -> None:
        """Let a job be the next once more."""
        self._queue.appendleft(job)
        self._waiting[self._kind(job)] += 1

    def take(self) -> list[JobRow]:
        """The next job, with its mates where it may have some. Raises IndexError when none is left."""
        kind = self._kind(self._queue[0])
        wanted = 1 if not kind[0] else min(kind[1], self._waiting[kind])
        taken: list[JobRow] = []
        kept: list[JobRow] = []
        while len(taken) < wanted:
            job = self._queue.popleft()
            (taken if self._kind(job) == kind else kept).append(job)
        self._queue.extendleft(reversed(kept))
        self._waiting[kind] -= wanted
        return taken

    def split(self, job: JobRow, size: int, state: Literal["failed", "oom", "lost", "timeout"]) -> None:
        """A task of so many jobs, this one among them, has ended badly: it must not be in such a large one again."""
        self._limits[job.id] = 1 if state == "failed" else max(1, size // 2)

    def _kind(self, job: JobRow) -> tuple[str, int]:
        """What the members of a pack share: their shape, and how large it may be."""
        limit = self._limits.get(job.id, self._size)
        return ("", 1) if limit == 1 else (self._shape(job), limit)

    def _shape(self, job: JobRow) -> str:
        key = (job.trial_number, job.task)
        if key not in self._shapes:
            one = job_of(self._study, job)
            self._shapes[key] = "" if unpackable(one) else shape(one)
        return self._shapes[key]
