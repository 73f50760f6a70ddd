"""`calibrate` as a user drives it, with trainings whose result is a known function of the vocabulary and the rate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from miras_search.engine import calibrate, driver

ENTRY = """\
import math
from miras_search.tasks.noisy_recall import NoisyRecall
from miras_search.training.job import Final, Outcome

def run(jobs, context):
    return [one(job["task"]["vocab"], job["train"]["lr"]) for job in jobs]

def broken(jobs, context):
    raise OSError("no space left on device")

def one(vocab, lr):
    if lr > 0.05:
        return Outcome("diverged", (Final("params", "", 1.0),), 1, 0.1, 100, "loss nan at step 2")
    standing = min(1.0, max(0.0, 1.4 - vocab / 100)) * (1 - 0.5 * abs(math.log10(lr / 1e-2)))
    chance = NoisyRecall(vocab=vocab, length=16).chance
    found = (("accuracy", "validation"), ("accuracy", "test"))
    return Outcome("complete", tuple(Final(*key, chance + standing * (1 - chance)) for key in found), 2, 0.1, 100)
"""
STUDY = """\
name: easy
task: {name: noisy_recall, vocab: 40, length: 16}   # a first guess
train: {steps: 2, lr: 3e-2}
base: delta_net
vary: {bias: [dot]}
seeds: 2
top_up: {max_seeds: 4}
tune: {train.lr: [1e-3, 3e-3, 1e-2, 1e-1]}
"""
TASK = "{name: noisy_recall, vocab: 40, length: 16}"
HARDEST = STUDY.replace(TASK, "{name: mqar, pairs: 2, length: 8}")  # nothing is easier


@pytest.fixture(autouse=True)
def stand_in(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "calibrate_entry.py").write_text(ENTRY)
    monkeypatch.syspath_prepend(str(here))

    def quick(study, db, options, tell):
        return driver.run_study(study, db, dataclasses.replace(options, entry="calibrate_entry:run"), tell)

    monkeypatch.setattr(calibrate, "run_study", quick)


@pytest.mark.slow
def test_a_task_that_is_too_easy_becomes_harder_and_the_file_says_why(cli, here: Path) -> None:
    path = here / "easy.yaml"
    path.write_text(STUDY)
    dry = cli("calibrate", "easy.yaml", "--dry-run", "--json", "--seeds", "1", "--workers", "1")
    assert dry.code == 0, dry.err
    assert (dry.json["fits"], dry.json["lr"], dry.json["changed"]) == (True, 0.01, {"vocab": 78})
    assert path.read_text() == STUDY

    done = cli("calibrate", "easy.yaml", "--seeds", "1", "--workers", "1")
    assert done.code == 0 and "written to easy.yaml" in done.err
    assert "complete" not in done.err and "4 done" in done.err  # all of it was stored
    first, *rungs, last = done.out.splitlines()
    assert first == "accuracy of l2 on validation, mean over seed 3000000, by learning rate"
    # 1.0 and 0.9 of the range are too easy, and a rung is left out on the way to the next
    assert [line.split(":")[0] for line in rungs] == ["vocab 40", "vocab 50", "vocab 78"]
    assert rungs[-1].endswith("0.1: diverged; 0.62 of the range above chance <- taken")
    assert last.startswith("rates from 0.01 to 0.01 reach 90% of that; worth tuning over [0.003, ")

    text = path.read_text()
    assert "vocab: 78" in text and "# a first guess" in text and text.count("# calibrated: ") == 5
    assert cli("check", "easy.yaml").code == 0


@pytest.mark.parametrize(
    ("entry", "wall", "why"),
    [("broken", "1 h", "8 failed"), ("run", "0.001 s", "the wall time of 0:00:00.001000 is over")],
)
def test_trainings_without_a_result_are_not_taken_for_a_hard_task(
    cli, here: Path, monkeypatch: pytest.MonkeyPatch, entry: str, wall: str, why: str
) -> None:
    def unlucky(study, db, options, tell):
        return driver.run_study(study, db, dataclasses.replace(options, entry=f"calibrate_entry:{entry}"), tell)

    text = f"{STUDY}resources: {{wall: {wall}}}\n"
    (here / "easy.yaml").write_text(text)
    with monkeypatch.context() as patched:
        patched.setattr(calibrate, "run_study", unlucky)
        found = cli("calibrate", "easy.yaml", "--seeds", "2", "--workers", "1")
    assert found.code == 2, found.err
    last = found.err.splitlines()[-1]
    assert "8 of its trainings have no result" in last
    assert f"({why}), and nothing is decided without: `miras-search status easy.calibration-" in last
    assert (here / "easy.yaml").read_text() == text
    (here / "easy.yaml").write_text(STUDY)
    assert cli("calibrate", "easy.yaml", "--seeds", "2", "--workers", "1").code == 0  # tries what failed again


def test_a_file_that_was_changed_meanwhile_is_left_alone(cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = here / "easy.yaml"
    path.write_text(STUDY)
    quick = calibrate.run_study

    def edited(study, db, options, tell):
        path.write_text(STUDY.replace("seeds: 2", "seeds: 3"))
        return quick(study, db, options, tell)

    with monkeypatch.context() as patched:
        patched.setattr(calibrate, "run_study", edited)
        found = cli("calibrate", "easy.yaml", "--seeds", "1", "--workers", "1")
    assert found.code == 2
    assert found.err.endswith("easy.yaml: it was changed meanwhile: run again, nothing is trained twice\n")
    assert "seeds: 3" in path.read_text()
    assert cli("calibrate", "easy.yaml", "--seeds", "1", "--workers", "1").code == 0
    assert "seeds: 3" in path.read_text() and "vocab: 78" in path.read_text()


@pytest.mark.parametrize(
    ("text", "words", "code", "said"),
    [
        (STUDY, ("--rates", "1e-3,x"), 2, "'x' is no rate above 0"),
        (STUDY.replace(TASK, "text"), (), 2, "has no difficulty to be set"),
        (STUDY.replace(TASK, "[mqar, text]"), (), 2, "of one task"),
        (STUDY.replace("seeds: 2", "seeds: [3000000]"), (), 2, "is kept for calibration"),
        (HARDEST, ("--rates", "1e-1", "--seeds", "1"), 1, "no difficulty on the ladder"),
    ],
)
def test_what_cannot_be_calibrated_is_left_alone(
    cli, here: Path, text: str, words: tuple[str, ...], code: int, said: str
) -> None:
    (here / "easy.yaml").write_text(text)
    result = cli("calibrate", "easy.yaml", "--workers", "1", *words)
    assert result.code == code and said in result.err
    assert (here / "easy.yaml").read_text() == text


def test_a_shipped_study_stays_as_it_is(cli) -> None:
    result = cli("calibrate", "bias")
    assert result.code == 2 and "copy it, or add --dry-run" in result.err


@pytest.mark.parametrize(
    ("standings", "rates", "beyond"),
    [
        ({1e-3: 0.2, 1e-2: 0.4, 1e-1: 0.7}, [0.01, 0.046, 0.22, 1.0], "0.1 is the last of the rates tried"),
        ({1e-3: 0.7, 1e-2: 0.4, 1e-1: 0.2}, [0.0001, 0.00046, 0.0022, 0.01], "0.001 is the first of the rates tried"),
        ({1e-3: 0.2, 1e-2: 0.7, 1e-1: 0.3}, [0.001, 0.0046, 0.022, 0.1], None),
    ],
)
def test_a_best_rate_at_an_end_is_told_and_looked_beyond(
    standings: dict[float, float], rates: list[float], beyond: str | None
) -> None:
    rung = calibrate.Rung({"vocab": 40}, standings, {rate: [value] for rate, value in standings.items()})
    found = calibrate.Calibration([rung], rung, {}, [3_000_000])
    assert found.rates == rates
    last = found.evidence("l2")[-1]
    assert last == f"{beyond}: a better one may lie beyond (--rates)" if beyond else last.startswith("rates from 0.01")
