"""`match`: every cell resized until it costs what the base costs, so that a difference is not one of budgets.

    match: params                      # | state | flops | none
    match: {params: {within: 0.05}}    # refused beyond; 10 % if nothing is said

The knobs, in this order, without those that the study varies or tunes: the width of the channel mixer (SwiGLU), taken
to the nearest; where a cell is still beyond the tolerance the head dimension; then the expansion of the memory, unless
memories are what is compared. The costs are measured on the model itself, which takes torch. A negative control keeps
the size of the cell that it controls.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from miras_search.errors import EnvironmentProblem
from miras_search.models import fit
from miras_search.space.fields import FieldError, Path, Plain, Problem, SpecError, nearest
from miras_search.study import levels
from miras_search.study.drafts import Draft
from miras_search.study.levels import Variant
from miras_search.study.whole import PRESET
from miras_search.training.job import Job

By = Literal["params", "state", "flops"]
COSTS: dict[By, str] = {"params": "params", "state": "state_bytes", "flops": "flops_per_token"}
WITHIN = 0.1
WIDEST = 16  # times d_model: of the channel mixer
LARGEST = 4  # times the value dimension: of a head
SMALLEST = 4  # and a size is never below this part of d_model, or of the value dimension

Cost = Callable[[Variant], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """What is made equal, and how nearly."""

    by: By
    within: float
    """The largest ratio less 1, either way round."""

    def to_plain(self) -> dict[str, Plain]:
        """As plain data."""
        return {"by": self.by, "within": self.within}

    def holds(self, ratio: float) -> bool:
        """Whether a cost so many times the base's will do."""
        return 1 / (1 + self.within) <= ratio <= 1 + self.within


def parse(given: object) -> Match | None:
    """What a file says under `match`. Raises `SpecError`."""
    where: Path = ("match",)
    settings: object = {}
    if isinstance(given, Mapping) and len(given) == 1:
        given, settings = next(iter(given.items()))
        where = ("match", str(given))
    if given == "none":
        return None
    if not isinstance(given, str) or given not in COSTS:
        raise SpecError.at(where, f"unknown match {given!r}{nearest(str(given), [*COSTS, 'none'])}")
    within = settings.get("within", WITHIN) if isinstance(settings, Mapping) else None
    if not isinstance(settings, Mapping) or set(settings) - {"within"}:
        raise SpecError.at(where, f"expected `within`, as in {{{given}: {{within: {WITHIN:g}}}}}, got {settings!r}")
    if isinstance(within, bool) or not isinstance(within, int | float) or not 0 < within <= 1:
        raise SpecError.at((*where, "within"), f"expected a share above 0, at most 1, got {within!r}")
    return Match(given, float(within))


@dataclasses.dataclass(frozen=True, slots=True)
class Resizer:
    """Resizes the cells of one study."""

    match: Match
    tasks: Sequence[Mapping[str, Plain]]
    """Their settings; a model's costs depend on the vocabulary and the length."""
    fixed: frozenset[str]
    """Paths that the study varies or tunes: no knobs."""

    def resized(self, drafts: Sequence[Draft]) -> list[Draft]:
        """The drafts, the base first, each as near to the base's cost as its knobs take it.

        Raises `SpecError` where one stays beyond the tolerance, EnvironmentProblem without torch.
        """
        base, *rest = drafts
        wanted = self._measure(base.variant)
        found, problems = [base], []
        for draft in rest:
            if draft.role == "control":
                found.append(draft)
                continue
            variant, sizes = self._nearest(draft.variant, wanted[0])
            ratios = [cost / target for cost, target in zip(self._measure(variant), wanted, strict=True)]
            found.append(dataclasses.replace(draft, variant=variant, sizes=sizes, ratio=ratios[0]))
            worst = max(ratios, key=lambda ratio: abs(math.log(ratio)))
            if not self.match.holds(worst):
                place = list(draft.places.values())[-1]
                tried = ", ".join(path for path, _ in self._knobs(draft.variant)) or "none is free"
                what = f"{draft.name}: its {self.match.by} can come no nearer than {worst:.3g} times the base's"
                cure = f"allow more by match: {{{self.match.by}: {{within: ...}}}}, or drop it"
                problems.append(Problem(place, f"{what} (knobs: {tried}): {cure}"))
        if problems:
            raise SpecError(problems)
        return found

    def _nearest(self, given: Variant, wanted: float) -> tuple[Variant, dict[str, str]]:
        """The variant resized, and what was set to which value for that."""
        variant = given
        for path, reachable in self._knobs(given):
            ratio = self._first_cost(variant) / wanted
            if ratio == 1 or (path != WIDTH and self.match.holds(ratio)):
                break
            starts = [given] if variant is given else [variant, given]  # a knob alone may reach what two together miss
            tried = [one for start in starts if (one := _bisected(list(reachable(start)), self._first_cost, wanted))]
            variant = min([variant, *tried], key=lambda one: abs(math.log(self._first_cost(one) / wanted)))
        texts = {path: levels.text_at(variant, path) for path in (WIDTH, "model.key_dim", "model.value_dim", EXPANSION)}
        return variant, {path: text for path, text in texts.items() if text and text != levels.text_at(given, path)}

    def _knobs(self, variant: Variant) -> list[tuple[str, Callable[[Variant], Iterator[Variant]]]]:
        """The knobs that may be turned, in their order."""
        own = variant.design.mixer is not None
        studied = {path.split(".")[0] for path in self.fixed} & {"memory", PRESET}
        found: list[tuple[str, Callable[[Variant], Iterator[Variant]]]] = []
        if (
            self.match.by != "state"
            and variant.model.feed_forward == "swiglu"
            and not {WIDTH, "model.feed_forward"} & self.fixed
        ):
            found.append((WIDTH, _widths))
        if not own and not {"model.key_dim", "model.value_dim", "model.heads"} & self.fixed:
            found.append((HEAD, _heads))
        if not own and not studied and hasattr(variant.design.memory, "expansion"):
            found.append((EXPANSION, _expansions))
        return found

    def _first_cost(self, variant: Variant) -> float:
        return self._measure(variant, self.tasks[:1])[0]

    def _measure(self, variant: Variant, tasks: Sequence[Mapping[str, Plain]] | None = None) -> list[float]:
        """The cost on each task. Raises `SpecError` for a layer of the user's own whose state nobody can measure."""
        name, found = COSTS[self.match.by], []
        for task in self.tasks if tasks is None else tasks:
            costs = _known_costs(Job(variant.design, variant.model, task, variant.train, 0, variant.design), name)
            if not costs.get(name):
                raise SpecError.at(
                    ("match",), f"{variant.design} has no {self.match.by} that can be measured: set none"
                )
            found.append(costs[name])
        return found


WIDTH, HEAD, EXPANSION = "model.feed_forward_ratio", "head dimension", "memory.expansion"


def _known_costs(job: Job, name: str) -> dict[str, float]:
    try:
        from miras_search.training.costs import known_costs

        return known_costs(job, [name])
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        what = "measures models, which takes torch: install it, or plan with --set match=none"
        raise EnvironmentProblem(f"match: {name} {what}") from error


def _widths(variant: Variant) -> Iterator[Variant]:
    for hidden in range(max(1, variant.model.d_model // SMALLEST), WIDEST * variant.model.d_model + 1):
        yield _with_model(variant, feed_forward_ratio=hidden / variant.model.d_model)


def _heads(variant: Variant) -> Iterator[Variant]:
    keys, values = variant.model.keys, variant.model.values
    for size in range(max(1, values // SMALLEST), LARGEST * values + 1):
        try:
            found = _with_model(variant, key_dim=max(1, round(keys * size / values)), value_dim=size)
        except FieldError:  # an odd one, where channels are turned in pairs
            continue
        if not fit.violations(found.design, found.model):
            yield found


def _with_model(variant: Variant, **settings: float) -> Variant:
    model = dataclasses.replace(variant.model, **settings)  # type: ignore[arg-type]  # whole numbers for dimensions
    return dataclasses.replace(variant, model=model)


def _expansions(variant: Variant) -> Iterator[Variant]:
    for size in range(1, 65):
        design = variant.design.changed(EXPANSION, size)
        if not fit.violations(design, variant.model):
            yield dataclasses.replace(variant, design=design)


def _bisected(sizes: Sequence[Variant], cost: Cost, wanted: float) -> Variant | None:
    """The one whose cost is nearest; costs grow with the place in the list."""
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if cost(sizes[middle]) < wanted else (low, middle)
    near = sizes[max(0, low - 1) : low + 1]
    return min(near, key=lambda one: abs(math.log(cost(one) / wanted)), default=None)
