"""Data frames and HTML: the right numbers in the right columns, and nothing stored that a browser would run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from miras_search.analysis.snapshot import load
from miras_search.analysis.stored import stored_tables
from miras_search.dashboard import frames
from miras_search.dashboard.designs import cards, gate_text
from miras_search.dashboard.markup import Card, ablation, design_cards, equation, progress_bar, trial_link
from miras_search.dashboard.progress import current, newest, troubles
from miras_search.export.html import verdict_list
from miras_search.export.palette import LIGHT
from miras_search.space.design import AXES, CHOICES, DesignPoint
from miras_search.space.plugin_text import Told
from miras_search.space.presets import PRESETS, preset
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import ResultRow

Opened = Callable[[Path], Database]
NOW = datetime(2026, 3, 5, tzinfo=UTC)


def test_the_trials_agree_with_the_table(normal: Path, opened: Opened) -> None:
    db = opened(normal)
    frame = frames.trials_frame(load(db, "bias"), "noisy_recall").set_index("cell")
    for row in stored_tables(db, "bias")[0].rows:
        line = frame.loc[row.cell]
        assert (line["mean"], line["sd"]) == pytest.approx((row.mean, row.sd))
        assert (line["n"], line["diverged"], line["failed"]) == (row.n, row.diverged, row.failed)
    assert frame.loc["value_shift", "state"] == "diverged"
    assert frame.loc["dot", "changes"] == "bias: dot"
    assert frame.loc["dot", "ended"] == "8 of 8"


def test_trials_are_filtered_by_words_states_and_roles(normal: Path, opened: Opened) -> None:
    frame = frames.trials_frame(load(opened(normal), "bias"), None)
    chosen = frames.filtered(frame, text="L2 write", states=[], roles=[])
    assert list(chosen["cell"]) == ["l2 + no_write"]
    assert list(frames.filtered(frame, text="", states=["diverged"], roles=[])["trial"]) == [4]
    assert list(frames.filtered(frame, text="", states=[], roles=["control"])["trial"]) == [5, 6]
    assert frames.filtered(frame, text="(d", states=[], roles=[])["cell"].tolist() == ["huber(delta=0.5)"]
    assert frames.filtered(frame, text="nothing", states=[], roles=[]).empty
    assert list(frames.filtered(frame, text=frame["hash"][2], states=[], roles=[])["trial"]) == [2]


def test_trials_without_a_result_have_empty_numbers(only_failures: Path, opened: Opened) -> None:
    frame = frames.trials_frame(load(opened(only_failures), "bias"), None)
    assert frame["mean"].isna().all()
    assert frame["params"].isna().all()
    assert list(frame["failed"]) == [2] * 7


def test_the_studies_are_counted(normal: Path, opened: Opened) -> None:
    (study,) = queries.studies(opened(normal))
    frame = frames.studies_frame([study], study.updated_at + timedelta(days=2, hours=3))
    assert frame.to_dict("records") == [
        {
            "study": "bias",
            "question": "Which attentional bias recalls best when the context is noisy?",
            "ended": "56 of 56",
            "diverged": 3,
            "failed": 0,
            "cells": 7,
            "metric": "accuracy",
            "newest change": "2 d ago",
        }
    ]


def test_running_and_newest_and_failed_trainings_are_listed(in_progress: Path, opened: Opened) -> None:
    shown = load(opened(in_progress), "bias")
    running = frames.running_frame(current(shown, datetime.now(UTC)))
    assert list(running["step"]) == ["250 of 300", "50 of 300"]
    assert list(running["progress"].round()) == [83, 17]
    done = frames.newest_frame(newest(shown, ("accuracy", "test")), "accuracy", datetime.now(UTC))
    assert len(done) == 8
    assert done["accuracy"].notna().all()


def test_a_failure_shows_the_line_that_tells(only_failures: Path, opened: Opened) -> None:
    frame = frames.troubles_frame(troubles(load(opened(only_failures), "bias")), NOW)
    assert set(frame["error"]) == {"RuntimeError: <b>no</b> kernel for *this*"}


def test_a_jobs_numbers_have_a_column_each(normal: Path, opened: Opened) -> None:
    results = [row for row in load(opened(normal), "bias").results if row.number == 4]
    frame = frames.jobs_frame(results)
    assert list(frame.columns[:8]) == [
        "task", "seed", "state", "last step", "test accuracy", "test loss", "validation accuracy", "validation loss",
    ]  # fmt: skip
    assert "params" in frame
    diverged = frame[frame["state"] == "diverged"]
    assert len(diverged) == 3
    assert diverged["test accuracy"].isna().all()
    assert list(diverged["last step"]) == [150, 150, 150]


def test_jobs_that_wait_need_no_columns() -> None:
    frame = frames.jobs_frame([ResultRow("l2", "base", 0, {}, "recall", 0, "waiting", None, {})])
    assert list(frame.columns) == ["task", "seed", "state", "last step"]


def test_settings_become_dotted_paths() -> None:
    settings: Mapping[str, object] = {
        "train": {"lr": 0.01, "betas": [0.9, 0.95]},
        "model": {"key_dim": None, "gate": True},
    }
    assert frames.settings_frame(settings).values.tolist() == [
        ["train.lr", "0.01"],
        ["train.betas", "0.9, 0.95"],
        ["model.key_dim", "none"],
        ["model.gate", "true"],
    ]


def test_the_html_table_has_the_columns_and_marks_of_the_renderers(normal: Path, opened: Opened) -> None:
    table = stored_tables(opened(normal), "bias")[0]
    html = ablation(table, {"dot": 1})
    assert "<b>0.815 ± 0.036</b>" in html
    assert "<u>0.738 ± 0.036</u>" in html
    assert "<sup>‡</sup>" in html
    assert 'href="trial?study=bias&amp;trial=1"' in html
    assert html.index("negative controls") > html.index("value_shift")
    assert html.count("<tr") == 2 + 7 + 1
    assert verdict_list(table, LIGHT).count("<li>") == 6


def test_nothing_from_the_database_becomes_html() -> None:
    evil = "<script>x</script>"
    cells = design_cards([Card("bias", evil, equation=evil, summary=evil, source=evil, settings=((evil, evil, '"'),))])
    assert "<script>" not in cells
    assert trial_link("a&b=c", 3) == "trial?study=a%26b%3Dc&trial=3"


def test_the_bar_shows_only_states_that_occur() -> None:
    html = progress_bar({"complete": 3, "diverged": 0, "failed": 1, "running": 0, "waiting": 4}, LIGHT)
    assert 'aria-label="8 jobs: 3 complete, 1 failed, 4 waiting"' in html
    assert "diverged" not in html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Z_t = a_t Z_{t-1} - e_t g_t", "Z<sub>t</sub> = a<sub>t</sub> Z<sub>t-1</sub> − e<sub>t</sub> g<sub>t</sub>"),
        ("l = 1/2 |r|^2", "l = 1/2 |r|<sup>2</sup>"),
        ("(r^2 + eps)^(p/2 - 1)", "(r<sup>2</sup> + eps)<sup>p/2 − 1</sup>"),
        ("W in R^(K x V)", "W in R<sup>K × V</sup>"),
        ("u = r if |r| <= d", "u = r if |r| ≤ d"),
        ("own_keys", "own_keys"),
    ],
)
def test_equations_get_their_indices(text: str, html: str) -> None:
    assert equation(text) == html


@pytest.mark.parametrize("axis", list(AXES))
def test_the_equation_of_every_option_can_be_set(axis: str) -> None:
    for option in AXES[axis].options.values():
        text = equation(option.equation)
        assert text.count("<sub>") == text.count("</sub>")
        assert re.sub(r"</?su[bp]>", "", text)


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_has_its_four_cards_with_equations(name: str) -> None:
    found = cards(preset(name).to_plain(), {})
    assert [card.axis for card in found] == [*CHOICES, "gate", "execution"]
    assert all(card.equation and card.source and card.summary for card in found[:4])


def test_a_layer_of_the_users_own_has_one_card_without_its_file() -> None:
    mixer = {"module": "h_gone.MyLayer", "args": {"width": 8, "wide": True}, "digest": "0123456789ab"}
    (card,) = cards(DesignPoint.parse({"mixer": mixer}).to_plain(), {})
    assert (card.axis, card.name, card.source) == ("layer of your own", "h_gone.MyLayer", "source 0123456789ab")
    assert card.settings == (("wide", "yes", ""), ("width", "8", ""))


def test_a_control_has_a_card_of_its_own() -> None:
    point = DesignPoint.parse({"preset": "delta_net", "control": "ascent"})
    assert [card.name for card in cards(point.to_plain(), {})][4] == "ascent"


def test_an_option_of_another_version_is_shown_without_facts() -> None:
    found = cards({"bias": {"cauchy": {"scale": 2.0}}}, {})
    assert found == [Card("bias", "cauchy", settings=(("scale", "2", ""),))]
    (own,) = cards({"bias": {"cauchy": {"scale": 2.0}}}, {"cauchy": Told("u = r / (1 + r^2)", "Heavy tails.")})
    assert (own.equation, own.summary, own.source) == ("u = r / (1 + r^2)", "Heavy tails.", "a plugin of the study")


def test_gates_read_as_words() -> None:
    assert gate_text({"source": "fixed", "value": 1.0}) == "fixed at 1"
    data = {"source": "data", "scope": "head", "squash": "sigmoid", "value": 0.5, "scale": 2.0}
    assert gate_text(data) == "from the data (sigmoid, starts at 0.5, up to 2; one value a head)"
