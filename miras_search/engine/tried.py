"""The options of a study's plugins, tried before the study is stored: once each, with the settings that it has there.

What a user wrote has no test of this package behind it, and a wrong gradient costs a whole study before anyone looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from miras_search.models.config import ModelConfig
from miras_search.space.design import AXES, DesignPoint
from miras_search.space.option import Facts, origin, short
from miras_search.study.problems import Located, StudyError
from miras_search.study.study import Study

DRAWS = 64  # designs of a search's space: enough to meet an option among dozens, and each takes a millisecond


@dataclass(frozen=True, slots=True)
class Tried:
    """An option and what was found."""

    option: str
    """As in tables, `bias welsch(c=1.0)`; several where none of them is in a design without the others."""
    broken: str | None
    """Its first property that does not hold, in words; None where all do."""
    raised: bool = False
    """Whether it raised: it may need a device that its jobs have and this process has not."""


def try_options(study: Study) -> list[Tried]:
    """Try each option of a plugin in the first of the study's designs that has it. Loads torch if there is one."""
    designs = [(_foreign(design), design, model) for design, model in _designs(study)]
    seen: set[str] = set()
    found = []
    for names, design, model in sorted(designs, key=lambda one: len(one[0])):  # alone, where it is alone
        new = [name for name in names if name not in seen]
        if new:
            seen.update(new)
            found.append(Tried(" with ".join(new), *_try(design, model)))
    return found


def check_options(study: Study) -> None:
    """Raise StudyError for the options of plugins that do not keep their contract.

    One that raises is not told of where jobs are given a GPU, which this process may not have.
    """
    tried = [one for one in try_options(study) if not (one.raised and study.resources.gpus)]
    if problems := broken_options(study.path, tried):
        raise StudyError(problems)


def broken_options(path: str, tried: Sequence[Tried]) -> list[Located]:
    """What does not hold, as problems of a study file."""
    return [Located(path, 0, 0, one.option, one.broken) for one in tried if one.broken]


def _designs(study: Study) -> Iterator[tuple[DesignPoint, ModelConfig]]:
    """The cells' designs; of a search, draws from its space too."""
    if not study.plugins:
        return
    yield from ((cell.design, cell.model) for cell in study.cells)
    if study.search is not None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        draws = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        yield from ((study.search.space.suggest(draws.ask()).design, study.model) for _ in range(DRAWS))


def _foreign(design: DesignPoint) -> list[str]:
    """The options of a design that come from a plugin, as text. A layer has a check of its own."""
    if design.mixer is not None:
        return []
    options: dict[str, Facts] = {axis: getattr(design, axis) for axis in AXES}
    return [f"{axis} {short(option)}" for axis, option in options.items() if origin(type(option)) is not None]


def _try(design: DesignPoint, model: ModelConfig) -> tuple[str | None, bool]:
    from miras_search.models.contract_options import examine_design

    for one in examine_design(design, model):
        if not one.ok:
            return f"{one.name}: {one.found}", one.raised
    return None, False
