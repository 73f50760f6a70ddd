"""A drawn point of a space as a cell of the study, and what stands against training it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import cast, overload

from miras_search.models import fit
from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Plain, SpecError, build, flow, to_plain
from miras_search.space.presets import PRESETS, preset
from miras_search.space.sampling import Sample
from miras_search.space.sampling_grammar import Label
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import TrialRow
from miras_search.study import levels
from miras_search.study.drafts import Cell
from miras_search.study.levels import Variant
from miras_search.study.search import KNOWN_BEFORE
from miras_search.study.study import Study
from miras_search.training.config import TrainConfig
from miras_search.training.costs import known_costs
from miras_search.training.job import Job


def variant(study: Study, sample: Sample) -> Variant:
    """The point in the study's model and training. Raises `SpecError` where settings exclude each other."""
    given: dict[str, dict[str, Plain]] = {"model": {}, "train": {}}
    for path, value in sample.settings.items():
        head, _, rest = path.partition(".")
        given[head][rest] = value
    model = build(ModelConfig, {**to_plain(study.model), **given["model"]}, ("model",))
    train = build(TrainConfig, {**to_plain(study.train), **given["train"]}, ("train",))
    return Variant(sample.design, model, train)


def cell(
    number: int, found: Variant, decided: Mapping[str, Label], known: str | None, taken: Container[str] = ()
) -> Cell:
    """The row of a point: named by what was decided; a published design by its name and what was drawn around it.

    Numbers that are drawn have four digits in it, and all of theirs where another cell has the name (`taken`).
    """
    for text in (_rounded, _whole):
        texts = {path: text(value) for path, value in decided.items()}
        shown = {path: text for path, text in texts.items() if not known or path.split(".")[0] in levels.CONFIGS}
        labels = [levels.label(path, text, texts) for path, text in shown.items()]
        name = " / ".join([*([known] if known else []), *labels]) or "base"
        if name not in taken:
            break
    else:
        name = f"{name} #{number}"
    return Cell(number, name, "cell", texts, texts, found.design, found.model, found.train)


def _rounded(value: Label) -> str:
    return f"{value:.4g}" if isinstance(value, float) else flow(value)


def _whole(value: Label) -> str:
    return repr(value) if isinstance(value, float) else flow(value)


class Cells(Sequence[Cell]):
    """The cells of a search by number: those of this run, and stored ones that are read when they are asked for.

    A search may have many thousands, of which a run meets a few again.
    """

    def __init__(self, base: Cell, db: Database, study_id: int) -> None:
        self._db, self._study_id = db, study_id
        self._known, self._count = {0: base}, 1
        self.names = {base.name}
        """Of all of them: readers know a cell by its name."""

    def append(self, cell: Cell) -> None:
        """One more, which was drawn now."""
        self._known[self._count] = cell
        self._count += 1
        self.names.add(cell.name)

    def stored(self) -> Iterator[tuple[int, str]]:
        """Number and `Variant.key` of each stored trial; all of them are counted from here on."""
        models: dict[str, Plain] = {}
        for number, name, design_hash, settings in queries.variants(self._db, self._study_id):
            self.names.add(name)
            given = json.dumps(settings["model"], sort_keys=True)
            if given not in models:
                models[given] = to_plain(build(ModelConfig, settings["model"], ("model",)).canonical())
            yield number, json.dumps([design_hash, models[given], settings["train"]], sort_keys=True)
            self._count = max(self._count, number + 1)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> Cell: ...

    @overload
    def __getitem__(self, number: slice) -> list[Cell]: ...

    def __getitem__(self, number: int | slice) -> Cell | list[Cell]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(self._count))]
        number = number + self._count if number < 0 else number
        if not 0 <= number < self._count:
            raise IndexError(number)
        if number not in self._known:
            (row,) = queries.trials(self._db, self._study_id, [number])
            self._known[number] = stored(row)
        return self._known[number]


def stored(row: TrialRow) -> Cell:
    """The cell of a stored trial."""
    settings = cast(Mapping[str, Mapping[str, object]], row.settings)
    return Cell(
        number=row.number,
        name=row.cell,
        role="base" if row.role == "base" else "cell",
        changes=row.changes,
        levels=row.changes,
        design=DesignPoint.parse(row.design),
        model=build(ModelConfig, settings["model"], ("model",)),
        train=build(TrainConfig, settings["train"], ("train",)),
    )


def costs(study: Study, found: Cell, limits: Mapping[str, float]) -> dict[str, float]:
    """The limited costs that are known before a training; the largest of the tasks'."""
    names = [name for name in KNOWN_BEFORE if name in limits]
    most: dict[str, float] = {}
    for task in study.tasks if names else ():
        job = Job(found.design, found.model, task.spec, found.train, study.seeds[0], study.base)
        for name, value in known_costs(job, names).items():
            most[name] = max(value, most.get(name, value))
    return most


def unfit(found: Cell) -> dict[str, str]:
    """Where the design does not fit into the model, and why: settings of the model may be drawn too."""
    return {".".join(map(str, it.where)): it.what for it in fit.violations(found.design, found.model)}


def over(known: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, str]:
    """Cost -> by how much it is over its limit, in words."""
    return {name: f"{value:,.0f} > {limits[name]:,.0f}" for name, value in known.items() if value > limits[name]}


def first_params(study: Study) -> Iterator[tuple[str, dict[str, Label]]]:
    """What is tried before anything is drawn: the base, then published designs that lie in the space, with names.

    At most half of the trials; settings around a published design are left to the sampler.
    """
    search = study.search
    assert search is not None
    base = study.cells[0]
    around = {"model": to_plain(base.model), "train": to_plain(base.train)}
    paths = [path.split(".", 1) for path in search.paths if path.split(".")[0] in around]
    settings = {f"{head}.{rest}": around[head][rest] for head, rest in paths}
    tried = [(base.name, base.design, settings)]
    if search.presets:
        tried += [(name, _held(study, name), {}) for name in PRESETS]
    seen: set[str] = set()
    left = max(1, search.trials // 2)
    for name, design, given in tried:
        if left < 1 or design.hash in seen:
            continue
        try:
            params = search.space.to_params(design, given or None)
        except SpecError:  # it lies elsewhere
            continue
        seen.add(design.hash)
        left -= 1
        yield name, params


def _held(study: Study, name: str) -> DesignPoint:
    """A published design with the execution of the study."""
    return dataclasses.replace(preset(name), execution=study.base.execution)
