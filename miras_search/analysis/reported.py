"""What a study reports: the trainings that its tables, its findings and its figures are made of, and no others.

Of a search those on fresh seeds, since on the seeds that it searched with a trial is best partly because it was chosen
for it; of a tuned study those on the seeds that chose nothing, as its cells; else all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from miras_search.analysis.tuned import Tuning
from miras_search.seeds import confirms
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import CurveRow, ResultRow, StudyRow


@dataclass(frozen=True, slots=True)
class Reported:
    """The reported trainings of a stored study."""

    study: StudyRow
    results: Sequence[ResultRow]
    """By cell and task; jobs without a result are among them."""
    tuning: Tuning | None
    everything: Sequence[ResultRow]
    """The trainings that chose something too, under the names of their trials."""

    @classmethod
    def of(cls, db: Database, study: StudyRow) -> Reported:
        """Read them."""
        return cls.among(study, queries.results(db, study.id))

    @classmethod
    def among(cls, study: StudyRow, everything: Sequence[ResultRow]) -> Reported:
        """Those among all trainings of the study."""
        tuning = Tuning.of(study, everything)
        if tuning is not None:
            return cls(study, tuning.reported(everything), tuning, everything)
        if study.kind == "search":
            return cls(study, [row for row in everything if confirms(row.seed)], None, everything)
        return cls(study, everything, None, everything)

    @property
    def searched(self) -> list[ResultRow]:
        """Of a search the trainings that it chose by."""
        return [row for row in self.everything if not confirms(row.seed)]

    def row_of(self, job: ResultRow) -> str | None:
        """The table's row that a training is in, of those in `everything`; None for one that chose something."""
        if self.tuning is not None:
            return self.tuning.cell_of(job)
        return job.cell if self.study.kind != "search" or confirms(job.seed) else None

    def curves(
        self, db: Database, metric: str, split: str, *, task: str | None = None, cells: Collection[str] | None = None
    ) -> list[CurveRow]:
        """Their curves, or those of one task and of some cells."""
        if self.tuning is not None:
            found = self.tuning.reported_curves(
                queries.curves(db, self.study.id, metric, split, task=task), self.everything
            )
            return [row for row in found if cells is None or row.cell in cells]
        named = None if cells is None else list(cells)
        found = queries.curves(db, self.study.id, metric, split, task=task, cells=named)
        return [row for row in found if self.study.kind != "search" or confirms(row.seed)]
