"""One cell of a study, from what the file says to the row of a table: the grid, a draft of a cell, its names.

Which drafts there are, and which of them become cells, is `miras_search.study.cells`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Path, Plain, to_plain
from miras_search.study import levels
from miras_search.study.designs import CROSSED, Design
from miras_search.study.levels import Held, Variant
from miras_search.study.whole import PRESET, Whole
from miras_search.training.config import TrainConfig

Role = Literal["base", "cell", "control"]


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One row of the table to come: a design point with its settings."""

    number: int
    """The trial's number in the store; the base is 0."""
    name: str
    """Short and unique in the study: `l2`, `huber(delta=0.5)`, `l2 + no_write`."""
    role: Role
    changes: Mapping[str, str]
    """Dotted path -> level text, for the paths where the cell differs from the base."""
    levels: Mapping[str, str]
    """Dotted path -> level text, for every path that the study varies and the cell has."""
    design: DesignPoint
    model: ModelConfig
    train: TrainConfig
    controls: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Where every cell is controlled: control -> the number of the cell that is this one under it."""
    sizes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What was set to match the base's cost: path -> text."""
    ratio: float | None = None
    """The matched cost as a multiple of the base's; None where nothing is matched."""

    @property
    def variant(self) -> Variant:
        """What it is, without its names."""
        return Variant(self.design, self.model, self.train)

    def to_plain(self) -> dict[str, Plain]:
        """Everything as plain data."""
        return {
            "number": self.number,
            "name": self.name,
            "role": self.role,
            "changes": dict(self.changes),
            "levels": dict(self.levels),
            "design": self.design.to_plain(),
            "model": self.model.to_plain(),
            "train": to_plain(self.train),
            **({"controls": dict(self.controls)} if self.controls else {}),
            **({} if self.ratio is None else {"sizes": dict(self.sizes), "ratio": round(self.ratio, 4)}),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """What a study file says about its cells."""

    base: Variant
    preset: str | None
    """The base's name where it is a published model as it stands."""
    vary: Mapping[str, object]
    design: Design
    resolution: int
    """What a fraction has to have at least."""
    controls: Sequence[object]
    controls_on: Literal["base", "cells"]
    """Which rows have negative controls."""
    held: Held
    own_execution: bool
    """Whether presets may run with executions of their own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """A cell before it is known to differ from the others."""

    variant: Variant
    preset: str | None
    role: Role
    places: Mapping[str, Path]  # varied path -> the place of its level in the file
    name: str = ""
    extra: Mapping[str, str] = dataclasses.field(default_factory=dict)
    whole: Whole | None = None
    """Its level of `preset`."""
    sizes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ratio: float | None = None


class Naming:
    """Level texts and cell names of one study."""

    def __init__(self, grid: Grid, varied: Sequence[str]) -> None:
        self.varied = varied
        self.crossed = grid.design in CROSSED
        self.whole = grid.preset or "base"
        self.base = grid.base
        base = Draft(grid.base, grid.preset, "base", {})
        self.base_levels = self.levels(base)
        self.base_name = self._name(base)

    def levels(self, draft: Draft) -> dict[str, str]:
        """The text of every varied path that the draft has."""
        texts = {
            path: (draft.preset or "base") if path == PRESET else levels.text_at(draft.variant, path)
            for path in self.varied
        }
        return {path: text for path, text in texts.items() if text is not None} | dict(draft.extra)

    def named(self, draft: Draft) -> Draft:
        """The draft with its name."""
        return dataclasses.replace(draft, name=self._name(draft))

    def _name(self, draft: Draft) -> str:
        texts = self.levels(draft)
        # the base of a one-axis study is a level like the others; of several axes it is a model
        paths = list(draft.places) or (self.varied if self.crossed or len(self.varied) == 1 else [])
        named = {PRESET: draft.whole.name} if draft.whole else {}
        labels = [named.get(path) or levels.label(path, texts[path], self.varied) for path in paths if path in texts]
        return " / ".join(labels) or self.whole

    def cell(self, number: int, draft: Draft, controls: Mapping[str, int]) -> Cell:
        """The finished cell."""
        texts = self.levels(draft)
        paths = [*draft.places, *draft.extra]
        changes = {path: texts[path] for path in paths if path in texts and texts[path] != self.base_levels.get(path)}
        variant = draft.variant
        if draft.whole is not None and draft.whole.settings:
            changes |= {PRESET: draft.whole.head, **levels.besides(draft.whole, variant, self.base)}
        return Cell(
            number=number,
            name=draft.name,
            role=draft.role,
            changes=changes,
            levels=texts,
            design=variant.design,
            model=variant.model,
            train=variant.train,
            controls=controls,
            sizes=draft.sizes,
            ratio=draft.ratio,
        )
