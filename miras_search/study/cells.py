"""The cells of a study: the base, what `vary` and `design` make of it, and the negative controls.

A cell is a design and the settings around it. Cells differ from the base by what their levels say and by nothing else:
two cells that are the same function are an error, and so is a comparison of designs that run with different executions,
because the difference would measure where the gradients are taken and not what is compared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from miras_search.models import fit
from miras_search.models.controlled import controlled
from miras_search.space.control import NoControl
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Path, Problem, SpecError, flow
from miras_search.study import designs, levels
from miras_search.study.designs import MAX_CELLS, Array, Chosen, Combination
from miras_search.study.drafts import Cell, Draft, Grid, Naming
from miras_search.study.levels import Variant
from miras_search.study.match import Resizer
from miras_search.study.whole import PRESET, read
from miras_search.training.job import UNMATCHED


class Built(NamedTuple):
    """The cells, and what is proved of their combinations where those are not all."""

    cells: tuple[Cell, ...]
    array: Array | None


def build(grid: Grid, resizer: Resizer | None = None) -> Built:
    """The cells, numbered, the base first, and resized where a resizer is given.

    Raises `SpecError` with every problem at its level.
    """
    choices = _choices(grid)
    chosen = _chosen(grid, choices)
    problems: list[Problem] = []
    drafts = []
    for combination in chosen.combinations:
        try:
            drafts.append(_draft(grid, combination))
        except SpecError as error:
            problems.extend(error.problems)
    if problems:
        raise SpecError(problems)
    if grid.design == "add_one_in" and choices:
        off = designs.all_off(choices, grid.base, grid.held)
        drafts = [dataclasses.replace(draft, places=_put_back(draft, choices)) for draft in drafts]
        grid = dataclasses.replace(grid, base=off, preset="all off")
    drafts.insert(0, Draft(grid.base, grid.preset, "base", {}))
    naming = Naming(grid, list(choices))
    drafts = [*map(naming.named, drafts), *_controls(grid, naming)]
    problems = [*_rule_problems(drafts, grid), *_match_problems(drafts, grid), *_mixed_problems(drafts, grid)]
    if problems:
        raise SpecError(problems)
    kept = _different(drafts)
    if resizer is not None:
        kept = resizer.resized(kept)
    rows = _Rows(kept, {})
    if grid.controls_on == "cells":
        rows = _under_controls(grid, kept)
    numbers = {draft.name: number for number, draft in enumerate(rows.drafts)}
    cells = tuple(
        naming.cell(
            numbers[draft.name],
            draft,
            {control: numbers[row] for control, row in rows.under.get(draft.name, {}).items()},
        )
        for draft in rows.drafts
    )
    return Built(cells, chosen.array)


def _choices(grid: Grid) -> dict[str, list[object]]:
    """The checked paths and their levels."""
    found: dict[str, list[object]] = {}
    problems: list[Problem] = []
    for path, given in grid.vary.items():
        where: Path = ("vary", path)
        try:
            levels.check_path(path, where)
            if not isinstance(given, list) or not given:
                raise SpecError.at(where, f"expected a list of levels, got {given!r}")
            found[path] = given
        except SpecError as error:
            problems.extend(error.problems)
    count = math.prod(map(len, found.values())) if grid.design == "factorial" else sum(map(len, found.values()))
    if count > MAX_CELLS:
        problems.append(Problem(("vary",), f"{count} cells are more than {MAX_CELLS}: vary fewer levels"))
    if problems:
        raise SpecError(problems)
    return found


def _chosen(grid: Grid, choices: dict[str, list[object]]) -> Chosen:
    """The combinations of levels that become cells. Raises `SpecError`."""
    problems = designs.check_parts(choices, grid.base, grid.held) if grid.design in designs.PARTS else []
    if problems:
        raise SpecError(problems)

    def at_base(path: str, level: object) -> bool:
        if path == PRESET:
            return level == grid.preset
        try:
            return levels.applied(grid.base, path, level, grid.held, ()).key == grid.base.key
        except SpecError:  # a level that only means something beside another one
            return False

    def refusal(combination: Combination) -> str | None:
        try:
            broken = _violations(_draft(grid, combination).variant)
        except SpecError as error:
            broken = list(error.problems)
        return broken[0].what if broken else None

    chosen = designs.chosen(grid.design, choices, resolution=grid.resolution, at_base=at_base, refusal=refusal)
    if len(chosen.combinations) > MAX_CELLS:
        what = f"{len(chosen.combinations)} cells are more than {MAX_CELLS}: vary fewer levels"
        raise SpecError.at(("vary",), what)
    return chosen


def _put_back(draft: Draft, choices: dict[str, list[object]]) -> dict[str, Path]:
    """The place of the one part that a draft of `add_one_in` has on."""
    return {path: ("vary", path, 0) for path in choices if path not in draft.places}


def _draft(grid: Grid, combination: Combination) -> Draft:
    variant = grid.base
    places: dict[str, Path] = {path: ("vary", path, combination[path][0]) for path in combination}
    for path in levels.application_order(combination):
        level = combination[path][1]
        variant = levels.applied(variant, path, level, grid.held, places[path])
    if PRESET not in combination:
        return Draft(variant, grid.preset, "cell", places)
    level = read(combination[PRESET][1], places[PRESET])
    for path in combination:
        if path in level.settings:
            raise SpecError.at(
                places[path], f"'{level.name}' of vary.preset sets {path} itself: vary it, or set it there"
            )
    return Draft(variant, level.text, "cell", places, whole=level)


def _controls(grid: Grid, naming: Naming) -> list[Draft]:
    """The base under each negative control."""
    found: list[Draft] = []
    problems: list[Problem] = []
    for i, spec in enumerate(grid.controls):
        where: Path = ("controls", i)
        try:
            variant = levels.applied(grid.base, "control", spec, grid.held, where)
        except SpecError as error:
            problems.extend(error.problems)
            continue
        text = levels.text_at(variant, "control") or ""
        name = f"{naming.base_name} + {text}"
        found.append(Draft(variant, grid.preset, "control", {"control": where}, name, {"control": text}))
    if problems:
        raise SpecError(problems)
    return found


class _Rows(NamedTuple):
    """The drafts that become rows, and for a name its rows under the controls: control -> name."""

    drafts: list[Draft]
    under: dict[str, dict[str, str]]


def _under_controls(grid: Grid, drafts: Sequence[Draft]) -> _Rows:
    """Every cell under every control that the base has, the rows of a control behind each other.

    One that is the same function as a row before it shares that row; one that a rule refuses is left out, which `plan`
    tells. Raises `SpecError` where rows cannot be told apart, or are too many.
    """
    base, plain = drafts[0], [draft for draft in drafts if draft.role != "control"]
    found, names = _Rows([*plain], {}), {draft.name for draft in plain}
    seen = {_function(draft, base): draft for draft in plain}
    for control in (draft for draft in drafts if draft.role == "control"):
        text, where = control.extra["control"], control.places["control"]
        for draft in plain:
            one = control if draft is base else _controlled(grid, draft, control)
            if one is None:
                continue
            twin = seen.setdefault(_function(one, base), one)
            found.under.setdefault(draft.name, {})[text] = twin.name
            if twin is not one:
                continue
            if one.name in names:
                raise SpecError.at(where, f"two different cells would be called '{one.name}'; drop one")
            names.add(one.name)
            found.drafts.append(one)
    if len(found.drafts) > MAX_CELLS:
        what = f"{len(found.drafts)} rows are more than {MAX_CELLS}: vary fewer levels, or control the base alone"
        raise SpecError.at(("controls_on",), what)
    return found


def _controlled(grid: Grid, draft: Draft, control: Draft) -> Draft | None:
    """The draft under the control of another one; None where it has one already, or a rule refuses it."""
    if draft.variant.design.control != NoControl():
        return None
    text, where = control.extra["control"], control.places["control"]
    spec = grid.controls[int(where[-1])]
    variant = levels.applied(draft.variant, "control", spec, grid.held, where)
    if _violations(variant):
        return None
    return dataclasses.replace(
        draft,
        variant=variant,
        role="control",
        places={**draft.places, "control": where},
        name=f"{draft.name} + {text}",
        extra={**draft.extra, "control": text},
    )


def _function(draft: Draft, base: Draft) -> str:
    """As `_key`, without what makes no difference under the draft's control."""
    variant = draft.variant
    control = variant.design.control
    design = control.simplest(variant.design)
    if control.model:  # which says it all
        design = dataclasses.replace(design, control=NoControl())
    model = controlled(variant.model, control)
    return _key(dataclasses.replace(draft, variant=dataclasses.replace(variant, design=design, model=model)), base)


def _different(drafts: Sequence[Draft]) -> list[Draft]:
    """The drafts without those whose levels are the base's own.

    Raises `SpecError` where two others are one function, and where one that is left out is listed twice.
    """
    base, *rest = drafts
    kept, seen, names = [base], {_key(base, base): base}, {base.name: base}
    problems: list[Problem] = []
    left_out: set[str] = set()
    for draft in rest:
        twin = seen.get(_key(draft, base))
        if twin is base and draft.role == "cell" and draft.name not in left_out:
            left_out.add(draft.name)
            continue
        place = list(draft.places.values())[-1]
        if twin is not None:
            both = f"'{draft.name}' is the same function as '{twin.name}', trained alike"
            problems.append(Problem(place, f"{both}: one cell would count as two; drop one"))
        elif draft.name in names:
            problems.append(Problem(place, f"two different cells would be called '{draft.name}'; drop one"))
        else:
            kept.append(draft)
            seen[_key(draft, base)] = names[draft.name] = draft
    if problems:
        raise SpecError(problems)
    return kept


def _key(draft: Draft, base: Draft) -> str:
    """Equal exactly where two drafts are the same function, trained alike."""
    variant = draft.variant
    uncontrolled = dataclasses.replace(variant.design, control=NoControl())
    if variant.train.inner_step == "match_base" and uncontrolled.hash == base.variant.design.hash:
        # a step that is matched to itself is as it is
        variant = dataclasses.replace(variant, train=dataclasses.replace(variant.train, inner_step="as_is"))
    return variant.key


def _rule_problems(drafts: Sequence[Draft], grid: Grid) -> list[Problem]:
    """Broken rules, each once, at the base or at the level that breaks it."""
    base, *rest = drafts
    own = _violations(base.variant)
    found: dict[tuple[Path, Problem], Problem] = {
        (("base",), broken): Problem(("base", *broken.where), broken.what) for broken in own
    }
    for draft in rest:
        for broken in _violations(draft.variant):
            place = _culprit(draft, broken, grid)
            inside = f"{draft.name}: " if len(draft.places) > 1 else ""
            if broken not in own:
                found.setdefault((place, broken), Problem((*place, *broken.where), f"{inside}{broken.what}"))
    return list(found.values())


def _violations(variant: Variant) -> list[Problem]:
    return fit.violations(variant.design, variant.model)


def _culprit(draft: Draft, broken: Problem, grid: Grid) -> Path:
    """The place of the level that breaks the rule alone, else of one on the axis that the rule names."""
    named = [path for path in draft.places if path.split(".")[0] == broken.where[0]]
    alone = []
    for path, place in draft.places.items():
        level = grid.vary.get(path)
        if isinstance(level, list) and len(draft.places) > 1:
            single = _alone(grid, path, level[int(place[-1])], place)
            if single and broken in _violations(single):
                alone.append(path)
    return draft.places[(*alone, *named, *draft.places)[0]]


def _alone(grid: Grid, path: str, level: object, place: Path) -> Variant | None:
    try:
        return levels.applied(grid.base, path, level, grid.held, place)
    except SpecError:  # a level that only means something beside another one
        return None


def _match_problems(drafts: Sequence[Draft], grid: Grid) -> list[Problem]:
    """Models in which a cell's step is to be matched to the base's although the base does not fit into them."""
    matched = [draft for draft in drafts if draft.variant.train.inner_step == "match_base"]
    own = [draft for draft in matched if draft.variant.design.mixer or grid.base.design.mixer]
    if own:
        return [Problem(("train", "inner_step"), f"{own[0].name}: {UNMATCHED}")]
    found = []
    for draft in drafts[1:]:
        broken = fit.violations(grid.base.design, draft.variant.model)
        if draft.variant.train.inner_step == "match_base" and broken and not _violations(grid.base):
            what = f"{draft.name}: its step is matched to the base's, which does not fit into this model ({broken[0]})"
            place = next((place for path, place in draft.places.items() if path.startswith("model.")), ("base",))
            found.append(Problem(place, f"{what}: use train.inner_step: as_is"))
    return found


def _mixed_problems(drafts: Sequence[Draft], grid: Grid) -> list[Problem]:
    """Designs that bring executions of their own although nothing says that they may."""
    settled = {draft.name: _settled(draft, grid.base.design) for draft in drafts}
    if grid.own_execution or not levels.mixed_execution(settled.values()):
        return []
    presets = [draft for draft in drafts if PRESET in draft.places]
    pairs = [(one, other) for one in drafts for other in presets if one is not other]  # the base's pairs first
    one, other = next(
        (pair for pair in pairs if levels.mixed_execution(settled[draft.name] for draft in pair)), pairs[0]
    )
    mine, theirs = settled[one.name], settled[other.name]
    hold = ", ".join(f"{key}: {flow(v)}" for key, v in levels.execution_difference(mine, theirs).items())
    what = (
        f"{other.name} runs as ({theirs.execution}) and {one.name} as ({mine.execution}), so their difference would "
        f"measure the execution too: hold one for every cell, as in `execution: {{{hold}}}`, "
        f"or opt in by `execution: own`"
    )
    return [Problem(other.places[PRESET], what)]


def _settled(draft: Draft, base: DesignPoint) -> DesignPoint:
    """The design with the execution settings that its own levels vary put back to the base's: those may differ."""
    plain = base.execution.to_plain()
    varied = [path.split(".")[1:2] for path in draft.places if path.split(".")[0] == "execution"]
    keys = plain if [] in varied else [key for part in varied for key in part]
    return levels.with_execution(draft.variant.design, {key: plain[key] for key in keys if key in plain})
