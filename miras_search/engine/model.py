"""One model that a stored study trained, to look into: its weights, and the sequences that it was tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from miras_search.engine.points import stored
from miras_search.engine.stored_cells import cell_named, cells_of, plugins_of, trained_task
from miras_search.engine.trained import read_file
from miras_search.errors import MirasError
from miras_search.models.language import LanguageModel
from miras_search.space import plugins
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.trained import CHECKPOINT, files_of_jobs, trained_by
from miras_search.tasks import task_from_spec
from miras_search.training.checkpoint import read_checkpoint
from miras_search.training.config import Seeds
from miras_search.training.evaluate import Labelled, Score, evaluate
from miras_search.training.job import Job


@final
@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """A model, and the training that made it."""

    model: LanguageModel
    """On the CPU, in evaluation mode: `model(tokens, positions)` gives logits [B, M, vocab]."""
    job: Job
    """Design, settings of model and training, task, seed."""

    def test(self, examples: int | None = None) -> Labelled:
        """The first of the sequences that it was tested on, or all: tokens [B, T], positions and targets [B, M]."""
        job = self.job
        count = job.train.eval_examples if examples is None else examples
        batch = task_from_spec(job.task).evaluation("test", Seeds.of(job.seed).eval, job.train.eval_examples)
        return Labelled.of(batch, torch.device("cpu")).split(count)[0]

    def score(self, data: Labelled | None = None) -> Score:
        """Accuracy and loss on labelled sequences; on all that it was tested on when None."""
        data = self.test() if data is None else data
        return evaluate(self.model, data, self.job.train.eval_batch, self.job.train.precision)


def trained_model(db: Database, study: str, cell: str | int, seed: int, trained_on: str | None = None) -> TrainedModel:
    """The model of a cell, by name or number, that was trained with a seed; of several tasks on `trained_on`.

    Plugins of the study are loaded with the source that its newest run had. Raises StudyNotFound, and MirasError where
    there is no such training, it is not complete, or its checkpoint is gone.
    """
    source = queries.study(db, study)
    if origin := trained_by(source):
        raise MirasError(f"{study}: it is an evaluation and trained nothing: take the models of {origin}")
    task = trained_task(source, trained_on).name
    plugins.use(plugins_of(db, source))
    if source.kind == "search":  # any trial, confirmed or not
        cells = [stored(row) for row in queries.trials(db, source.id)]
    else:
        cells = cells_of(db, source, task)
    number = cell_named(cells, str(cell), study)
    rows = {
        row.seed: row for row in files_of_jobs(db, source.id, CHECKPOINT) if (row.number, row.task) == (number, task)
    }
    name = next(one.name for one in cells if one.number == number)
    if seed not in rows:
        known = ", ".join(map(str, rows)) or "none"
        raise MirasError(f"{study}: {name}, {task}: not trained with seed {seed!r}; its seeds: {known}")
    if rows[seed].state != "complete":
        raise MirasError(f"{study}: {name}, {task}, seed {seed}: its training is {rows[seed].state}: there is no model")
    job, model = read_checkpoint(read_file(db, study, name, rows[seed]), f"{study}: {name}, seed {seed}")
    return TrainedModel(model.eval(), job)
