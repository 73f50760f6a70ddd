"""A search as a user runs it, on the local executor with trainings that take no time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from miras_search.analysis.search import SearchReport, search_report
from miras_search.analysis.stored import stored_tables
from miras_search.analysis.stored_findings import stored_findings
from miras_search.engine.driver import RunOptions, run_study
from miras_search.engine.events import RunSummary
from miras_search.engine.samplers import sampler
from miras_search.engine.tpe import History
from miras_search.errors import EnvironmentProblem
from miras_search.export.report import findings, to_report
from miras_search.seeds import confirms
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import JobRow, StudyChanged, TrialRow
from miras_search.study.loader import loads

TEXT = """\
name: sought
kind: search
task: {name: mqar, length: 32}
model: {layers: 1, d_model: 16, heads: 1}
train: {steps: 18, batch: 8, eval_examples: 16, eval_every: 2, lr: 1e-2}
base: delta_net
space: {bias: [dot, l2, {huber: {delta: 0.5}}], train.lr: {log_uniform: [1e-3, 3e-2]}}
trials: 8
confirm: {top: 2, seeds: 2}
presets: false
"""


class Bench:
    """A database, and a folder in which trainings note their calls."""

    def __init__(self, folder: Path, where: str | None = None) -> None:
        self.folder = folder
        self.where = where or str(folder / "t.db")

    def run(
        self, *overrides: str, behaviour: str = "train", executor: str = "local", **options: int | bool
    ) -> RunSummary:
        study = loads(TEXT, "sought.yaml", overrides)
        entry = f"search_entries:{behaviour}@{self.folder}"
        with Database.open(self.where, create=True) as db:
            settings = RunOptions(executor=executor, entry=entry, **{"workers": 1, **options})
            return run_study(study, db, settings, lambda event: None)

    def jobs(self) -> list[JobRow]:
        with Database.open(self.where) as db:
            return queries.jobs(db, queries.study(db, "sought").id)

    def trials(self) -> list[TrialRow]:
        with Database.open(self.where) as db:
            return queries.trials(db, queries.study(db, "sought").id)

    def report(self) -> SearchReport:
        with Database.open(self.where) as db:
            return search_report(db, queries.study(db, "sought"))

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def drawn(self) -> list[tuple[str, object]]:
        """What each trial is, as text."""
        return [(row.design_hash, json.dumps(row.settings, sort_keys=True)) for row in self.trials()]


@pytest.fixture
def bench(tmp_path: Path, where: str) -> Bench:
    return Bench(tmp_path, where)


def searched(jobs: Sequence[JobRow]) -> list[JobRow]:
    return [job for job in jobs if not confirms(job.seed)]


def test_a_search_trains_its_trials_and_confirms_the_best_on_fresh_seeds(bench: Bench) -> None:
    summary = bench.run()
    assert (summary.complete, summary.waiting, summary.failed) == (8 + 3 * 2, 0, 0)
    report = bench.report()
    assert report.competitors == 7, "the base is one of the trials, and no competitor of itself"
    assert [row.rank for row in report.rows] == [1, 2, None]
    best = report.rows[0]
    assert best.confirmed is not None and best.shrinkage is not None
    assert best.shrinkage == pytest.approx((best.values[0] or 0) - best.confirmed)
    assert best.n == best.of == 2
    with Database.open(bench.where) as db:
        table = stored_tables(db, "sought")[0]
        (found,), _ = stored_findings(db, "sought", [table])
        exported = findings(db, "sought")
    assert [one.cell for one in found.cells] == [row.cell for row in table.rows if row.cell != table.base]
    won = [one.wins for one in found.cells if one.wins is not None]
    assert [one.wins + one.ties + one.losses for one in won] == [2, 2], "nor among the seeds that are won"
    assert "; n = 2. " in exported.curves[table.task].words
    assert "The rows are the best 2 of 7 competitors in a search of 8 trials by validation accuracy" in table.caption
    shrinkage = "Shrinkage, validation accuracy as the search saw it less that on these seeds: "
    assert table.notes[-1].startswith(f"{shrinkage}{best.cell} (")
    assert "On the seeds that the search looked at" in to_report(exported)
    assert {row.cell for row in table.rows} == {row.cell for row in report.rows}
    assert all(row.n == 2 for row in table.rows), "the seeds that chose them are not in the table"


def test_running_again_trains_nothing_and_more_trials_are_a_top_up(bench: Bench) -> None:
    bench.run()
    before = bench.drawn()
    assert bench.run().attempts == 0
    bench.run("trials=10")
    assert bench.drawn()[: len(before)] == before
    assert len(searched(bench.jobs())) == 10
    with pytest.raises(StudyChanged):
        bench.run("space.bias=[dot]")


def test_a_function_that_is_drawn_again_gets_more_seeds_and_no_row_of_its_own(bench: Bench) -> None:
    bench.run("space={bias: [dot, l2]}", "trials=7", "seeds=[4, 5]")
    assert len(bench.trials()) == 2
    seeds = {number: [job.seed for job in searched(bench.jobs()) if job.trial_number == number] for number in (0, 1)}
    assert sum(map(len, seeds.values())) == 14
    for own in seeds.values():
        assert own[:2] == [4, 5]
        assert sorted(own) == list(range(4, 4 + len(own)))


def test_numbers_that_four_digits_do_not_tell_apart_have_all_of_theirs(bench: Bench) -> None:
    """Or two trials would share a name, and with it a curve and a file."""
    study = ["space={train.lr: {log_uniform: [0.01, 0.010000001]}}", "confirm={top: 0}", "sampler=random"]
    bench.run(*study, "trials=2")
    bench.run(*study, "trials=4")  # names of the run before count
    names = [trial.cell for trial in bench.trials()]
    assert names[1] == "lr=0.01", "the first is short"
    assert len(set(names)) == len(names) == 4, "the base is one of them"
    for trial in bench.trials()[2:]:
        assert trial.cell == f"lr={trial.settings['train']['lr']!r}"


def test_sync_asks_the_same_whatever_the_workers_and_wherever_it_is_cut(bench: Bench, tmp_path: Path) -> None:
    study = ["schedule={sync: 3}", "pruner=median", "trials=12", "confirm={top: 0}"]
    bench.run(*study)
    other = Bench(tmp_path / "other")
    other.folder.mkdir()
    for most in (1, 2, 4):
        other.run(*study, max_jobs=most)
    other.run(*study)
    assert other.drawn() == bench.drawn()
    states = [[(job.trial_number, job.seed, job.state) for job in it.jobs()] for it in (bench, other)]
    assert states[0] == states[1]


def test_a_pruner_ends_trials_early_and_they_are_results(bench: Bench) -> None:
    study = ["pruner=asha", "trials=10", "confirm={top: 1, seeds: 2}"]
    summary = bench.run(*study)
    assert summary.pruned > 0
    assert summary.waiting == summary.failed == 0
    assert len(searched(bench.jobs())) == 10
    assert bench.report().competitors == 9
    with Database.open(bench.where) as db:
        rows = queries.results(db, queries.study(db, "sought").id)
    assert all((row.last_step or 0) < 18 for row in rows if row.state == "pruned")
    assert bench.run(*study).attempts == 0


def test_wilcoxon_races_seeds_and_drops_what_loses(bench: Bench) -> None:
    study = ["pruner=wilcoxon", "seeds=6", "trials=6", "confirm={top: 0}", "train.eval_every=18"]
    bench.run(*study)
    jobs = Counter(job.trial_number for job in bench.jobs())
    assert max(jobs.values()) == 6
    assert min(jobs.values()) < 6, "a trial that loses on the first seeds is not trained on the rest"
    assert bench.run(*study).attempts == 0


def test_what_is_over_a_limit_is_refused_untrained_with_its_reason(bench: Bench) -> None:
    space = "space={bias: [dot, l2], model.d_model: [16, 64], train.lr: {log_uniform: [1e-3, 3e-2]}}"
    bench.run(space, "constraints={params: 10000}", "confirm={top: 0}")
    refused = [row for row in bench.trials() if row.role == "refused"]
    assert refused
    for row in refused:
        assert row.changes["model.d_model"] == "64"
        assert "> 10,000" in str(row.settings["refused"])
    assert len(searched(bench.jobs())) == 8, "a refused point is no trial"
    assert not {row.number for row in refused} & {job.trial_number for job in bench.jobs()}
    assert bench.report().trials["refused"] == len(refused)


def test_a_base_over_the_limits_is_trained_as_what_trials_are_compared_with(bench: Bench) -> None:
    settings = (
        "space={bias: [dot, l2], model.d_model: [8, 16]}",
        "constraints={params: 3000}",
        "confirm={top: 1, seeds: 2}",
    )
    assert bench.run(*settings).attempts > 0
    jobs = [job for job in searched(bench.jobs()) if job.trial_number == 0]
    assert [job.state for job in jobs] == ["complete"]
    assert bench.trials()[0].role == "base"
    assert bench.run(*settings).attempts == 0, "all of it was trained at once"


def test_limits_that_nothing_meets_end_the_search_and_say_by_how_much(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.run("constraints={params: 10}", "confirm={top: 0}")
    (said,) = [it.getMessage() for it in caplog.records if "refused by the limits" in it.getMessage()]
    assert re.search(r"the search ends here; the last one: params [\d,]+ > 10; widen them", said)
    assert {job.trial_number for job in searched(bench.jobs())} == {0}, "the base alone, as in any search"


def test_diverged_trials_are_results_that_cannot_win(bench: Bench) -> None:
    summary = bench.run("space.bias=[lp, l2]", "trials=6", "confirm={top: 3, seeds: 1}")
    assert summary.diverged > 0
    assert summary.failed == 0
    assert all("lp" not in row.cell for row in bench.report().rows)


def test_two_objectives_have_a_front(bench: Bench) -> None:
    bench.run("objectives={accuracy: maximize, params: minimize}", "sampler=nsga2", "trials=12")
    report = bench.report()
    assert report.on_front
    assert {len(row.values) for row in report.rows} == {2}
    assert 0 < len(report.on_front) < report.competitors


@pytest.mark.parametrize(
    "named", ["nsga3", *(pytest.param(n, marks=pytest.mark.slow) for n in ("random", "qmc", "gp"))]
)
def test_every_sampler_goes_on_where_it_was_cut(bench: Bench, named: str) -> None:
    study = [f"sampler={named}", "trials=6", "confirm={top: 0}", "schedule={sync: 2}"]
    bench.run(*study, max_jobs=3)
    bench.run(*study)
    other = Bench(bench.folder / "other")
    other.folder.mkdir()
    other.run(*study)
    assert other.drawn() == bench.drawn()


def test_a_sampler_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    space = "space={model.init_scale: {uniform: [0.5, 1]}, train.lr: {log_uniform: [1e-3, 3e-2]}}"
    search = loads(TEXT, "sought.yaml", ["sampler=cmaes", space]).search
    assert search is not None
    monkeypatch.setattr("miras_search.engine.samplers.importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match="pip install cmaes"):
        sampler(search, 0, History())


def test_a_killed_driver_leaves_a_search_that_goes_on(bench: Bench) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from test_engine_search import Bench; Bench(Path(sys.argv[2]), sys.argv[3]).run('schedule={sync: 2}', "
        "behaviour='kill=4')"
    )
    words = [sys.executable, "-c", code, str(Path(__file__).parent), str(bench.folder), bench.where]
    killed = subprocess.run(words, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    summary = bench.run("schedule={sync: 2}")
    assert (summary.complete, summary.waiting) == (8 + 3 * 2, 0)
    twice = [call for call, times in Counter(bench.calls()).items() if times > 1]
    assert len(twice) == 1, "the one that ran when the driver died"
    other = Bench(bench.folder / "other")
    other.folder.mkdir()
    other.run("schedule={sync: 2}")
    assert other.drawn() == bench.drawn()


@pytest.mark.slow
def test_on_ray_a_search_draws_and_finds_the_same(bench: Bench, ray_running: None) -> None:
    study = ["schedule={sync: 4}", "pruner=asha", "trials=6"]
    bench.run(*study, executor="ray", workers=2, max_jobs=3)
    bench.run(*study, executor="ray", workers=2)
    other = Bench(bench.folder / "other")
    other.folder.mkdir()
    other.run(*study)
    assert other.drawn() == bench.drawn()
    assert other.report() == bench.report()


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.parametrize("where", ["postgres"], indirect=True)
def test_on_postgres_a_search_draws_and_finds_the_same(bench: Bench) -> None:
    study = ["schedule={sync: 3}", "pruner=asha"]
    bench.run(*study, max_jobs=4)
    bench.run(*study)
    other = Bench(bench.folder / "other")
    other.folder.mkdir()
    other.run(*study)
    assert other.drawn() == bench.drawn()
    assert other.report() == bench.report()
