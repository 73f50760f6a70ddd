"""From rows in a database to a table: the store's results are what the table reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from miras_search.analysis.table import ablation_table
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import Final, NewJob, NewTrial
from miras_search.store.writer import Writer


def test_results_of_a_stored_study_become_a_table(tmp_path: Path) -> None:
    with Database.open(str(tmp_path / "miras.db"), create=True) as db:
        writer = Writer(db)
        study_id = writer.put_study(
            name="bias",
            question="?",
            kind="ablation",
            metric="accuracy",
            config_yaml="",
            config={},
            config_hash="a",
            space_hash="b",
        )
        writer.put_trials(
            study_id,
            [
                NewTrial(0, "dot", "base", {}, {}, {}, "0"),
                NewTrial(1, "l2", "cell", {"bias": "l2"}, {}, {}, "1"),
            ],
        )
        writer.put_jobs(study_id, [NewJob(number, "recall", seed) for number in (0, 1) for seed in (0, 1, 2)])
        run = writer.begin_run(study_id, provenance={})
        for job in queries.jobs(db, study_id):
            if (job.cell, job.seed) == ("l2", 2):
                continue  # still waiting
            attempt = writer.start_attempt(job.id, run.id, host="here", pid=1, device="cpu")
            diverged = (job.cell, job.seed) == ("l2", 1)
            finals = [Final("params", "", 12_345.0), Final("peak_memory_bytes", "", 1e6 + job.seed)]
            if not diverged:
                finals.append(Final("accuracy", "test", 0.5 + 0.01 * job.seed + 0.2 * (job.cell == "l2")))
            writer.finish_attempt(
                attempt,
                state="diverged" if diverged else "complete",
                finals=finals,
                last_step=300,
                wall_seconds=1.0,
                peak_memory_bytes=None,
                final_for_job=True,
            )
        table = ablation_table(queries.results(db, study_id), study="bias", metric="accuracy", task="recall")
    base, cell = table.rows
    assert (base.n, base.of, base.mean) == (3, 3, pytest.approx(0.51))
    assert (cell.n, cell.of, cell.diverged, cell.pairs) == (1, 3, 1, 1)
    assert cell.changes == {"bias": "l2"}
    assert cell.difference == pytest.approx(0.2)
    assert (base.params, base.peak_memory_bytes) == (12_345, 1_000_002)
    assert "1 of 6 jobs not finished yet." in table.notes
