"""A pairwise-covering sample of the whole space.

Every two options of different factors that some valid point has together are in it, and every spelling of an option at
least once. Pairs that no valid point was found for in many tries are listed beside it.
"""

from __future__ import annotations

import itertools
import random
from functools import cache
from typing import Any, NamedTuple

from memories import SOFT

from miras_search.space.design import AXES, DesignPoint
from miras_search.space.execution import Execution
from miras_search.space.gates import STEP, Gate
from miras_search.space.rules import violations

CHANNEL = {**SOFT, "scope": "value"}

MEMORIES: dict[str, object] = {
    "vector": "vector",
    "matrix": "matrix",
    "matrix zero": {"matrix": {"start": "zero"}},
    "ttt linear": {"matrix": {"residual": True, "norm": "layer", "affine": True}},
    "mlp": {"mlp": {"residual": False, "expansion": 2}},
    "deep mlp": {"mlp": {"depth": 3, "expansion": 1, "activation": "tanh", "affine": True}},
    "gated_mlp": {"gated_mlp": {"expansion": 2, "residual": False, "affine": True}},
    "attention": "attention",
    "window": {"attention": {"window": 5}},
}
BIASES: dict[str, object] = {
    "dot": "dot",
    "l2": "l2",
    "l2 full": {"l2": {"scale": "full"}},
    "l1": {"l1": {"smoothing": "tanh"}},
    "lp": {"lp": {"p": 1.5, "epsilon": 0.01}},
    "lp 3": {"lp": {"p": 3.0, "smoothing": "tanh"}},
    "huber coordinate": {"huber": {"form": "coordinate", "delta": CHANNEL}},
    "huber norm": {"huber": {"form": "norm", "delta": SOFT}},
    "huber pseudo": {"huber": {"form": "pseudo", "delta": {**SOFT, "source": "learned"}}},
    "huber pseudo_norm": {"huber": {"form": "pseudo_norm", "delta": 0.5}},
    "logcosh": "logcosh",
    "value_shift": {"value_shift": {"delta": SOFT}},
    "kl": "kl",
}
RETENTIONS: dict[str, object] = {
    "none": "none",
    "l2 fixed": {"l2": {"keep": 0.9}},
    "l2 head": "l2",
    "l2 key": {"l2": {"keep": {"scope": "key", "squash": "rwkv", "value": 0.9}}},
    "l2 value": {"l2": {"keep": {"scope": "value", "rank": 2}}},
    "l2 both": {"l2": {"keep": {"scope": "key_value"}}},
    "l2 coupled": {"l2": {"coupled": True}},
    "kl column": {"kl": {"keep": {"scope": "value"}}},
    "kl row": {"kl": {"slice": "row", "scale": 2.0, "keep": {"scope": "key"}}},
    "kl whole": {"kl": {"slice": "whole", "learned_scale": True, "coupled": True}},
    "f reverse": {"f_divergence": {"divergence": "reverse_kl"}},
    "f chi": {"f_divergence": {"divergence": "chi_squared", "slice": "row", "keep": "data"}},
    "f hellinger": {"f_divergence": {"divergence": "hellinger", "slice": "whole"}},
    "elastic primal": {"elastic_net": {"shrink": 0.05, "keep": "data"}},
    "elastic dual": {"elastic_net": {"view": "ftrl", "shrink": 0.05, "threshold": "smooth", "keep": "data"}},
    "lq dual": "lq",
    "lq primal": {"lq": {"q": 1.5, "reading": "primal_index", "over": "column"}},
    "lq memory": {"lq": {"q": 3.0, "over": "memory"}},
    "lq restart": {"lq": {"q": 1.5, "over": "memory", "restart": True}},
    "bregman tanh": {"bregman": {"potential": "tanh"}},
    "bregman arcsinh": {"bregman": {"potential": "arcsinh"}},
    "bregman logit": {"bregman": {"potential": "logit"}},
}
ALGORITHMS: dict[str, object] = {
    "gd": "gd",
    "momentum": "momentum",
    "momentum key": {"momentum": {"momentum": {"scope": "key"}}},
    "multi_step": {"multi_step": {"writes": 2}},
    "one pair": {"multi_step": {"writes": 2, "own_keys": False}},
    "implicit": "implicit",
    "erase_write": "erase_write",
    "omega": {"omega": {"window": 3, "momentum": "data"}},
    "muon": {"muon": {"iterations": 3}},
    "adam": "adam",
    "newton": "newton",
    "nonparametric": "nonparametric",
}
STEPS: dict[str, object] = {
    "head": {}, "key": {"scope": "key"}, "value": {"scope": "value"}, "both": {"scope": "key_value"},
    "fixed": {"source": "fixed", "value": 0.3},
}  # fmt: skip
GRADIENTS: dict[str, object] = {"exact": "exact", "frozen": "frozen", "refined": {"refined": 2}}
ATS: dict[str, object] = {"previous": "previous", "decayed": "decayed"}
REFRESHES: dict[str, object] = {"token": "token", "chunk": "chunk", "lag": "lag"}
CHUNKS: dict[str, object] = {"1": 1, "16": 16, "64": 64}
TOKENS: dict[str, object] = {"1": 1, "7": 7, "16": 16, "63": 63, "100": 100}
FACTORS: tuple[dict[str, object], ...] = (
    MEMORIES, BIASES, RETENTIONS, ALGORITHMS, STEPS, GRADIENTS, ATS, REFRESHES, CHUNKS, TOKENS,
)  # fmt: skip
KEY_DIM, VALUE_DIM = 3, 4
Chosen = tuple[str, ...]
Pair = tuple[int, str, int, str]


class Covered(NamedTuple):
    """One point of the sample, with the number of tokens it is run on."""

    chosen: Chosen
    point: DesignPoint
    tokens: int


@cache
def _parsed() -> tuple[dict[str, Any], ...]:
    """The options of the first five factors, read once."""
    axes = [AXES[axis] for axis in ("memory", "bias", "retention", "algorithm")]
    options = [{n: axis.parse(spec) for n, spec in f.items()} for axis, f in zip(axes, FACTORS, strict=False)]
    return (*options, {name: Gate.from_plain(spec, (), STEP) for name, spec in STEPS.items()})


@cache
def point_of(chosen: Chosen) -> DesignPoint | None:
    """The design point, or None where a rule refuses it."""
    options = [found[name] for found, name in zip(_parsed(), chosen, strict=False)]
    gradient, at, refresh, chunk = (f[n] for f, n in zip(FACTORS[5:9], chosen[5:9], strict=True))
    execution = Execution.from_plain(
        {"gradient": gradient, "gradient_at": at, "link_refresh": refresh, "chunk": chunk}, ()
    )
    point = DesignPoint(*options, execution)
    return None if violations(point, VALUE_DIM if point.memory.square else KEY_DIM, VALUE_DIM) else point


@cache
def option_of(i: int, name: str) -> str:
    """The option that a spelling of one of the four choices is of; other factors are their own."""
    return str(_parsed()[i][name].name) if i < 4 else name


@cache
def spellings() -> tuple[dict[str, list[str]], ...]:
    """The spellings of every factor by option."""
    found: list[dict[str, list[str]]] = []
    for i, factor in enumerate(FACTORS):
        found.append({})
        for name in factor:
            found[-1].setdefault(option_of(i, name), []).append(name)
    return tuple(found)


@cache
def _structures() -> list[Chosen]:
    """The valid combinations of the first five factors, each option in its first spelling, under the execution that
    refuses least.
    """
    least = ("exact", "decayed", "token", "16", "1")
    first = [[names[0] for names in by.values()] for by in spellings()[:5]]
    return [chosen for chosen in itertools.product(*first) if point_of((*chosen, *least)) is not None]


@cache
def _structures_with(options: frozenset[tuple[int, str]]) -> list[Chosen]:
    """Those with these options."""
    return [chosen for chosen in _structures() if all(option_of(i, chosen[i]) == name for i, name in options)]


def completed(fixed: dict[int, str], draw: random.Random, tries: int) -> Chosen | None:
    """A valid choice of all factors with the options of some of them, or their spellings, given."""
    options = {i: option_of(i, name) if name in FACTORS[i] else name for i, name in fixed.items()}
    able = _structures_with(frozenset(item for item in options.items() if item[0] < 5))
    for _ in range(tries if able else 0):
        chosen = [draw.choice(spellings()[i][option_of(i, name)]) for i, name in enumerate(draw.choice(able))]
        chosen += [draw.choice(list(factor)) for factor in FACTORS[5:]]
        for i, name in fixed.items():
            if name in FACTORS[i]:
                chosen[i] = name
        if point_of(tuple(chosen)) is not None:
            return tuple(chosen)
    return None


def pairs_of(chosen: Chosen) -> set[Pair]:
    """Every two options that a choice has together, and every spelling by itself."""
    options = [option_of(i, name) for i, name in enumerate(chosen)]
    pairs = {(i, options[i], j, options[j]) for i, j in itertools.combinations(range(len(chosen)), 2)}
    return pairs | {(i, name, i, name) for i, name in enumerate(chosen)}


def wanted() -> list[Pair]:
    """Every two options of different factors, and every spelling by itself."""
    by = spellings()
    pairs = [(i, a, j, b) for i, j in itertools.combinations(range(len(FACTORS)), 2) for a in by[i] for b in by[j]]
    return pairs + [(i, name, i, name) for i, factor in enumerate(FACTORS) for name in factor]


@cache
def covering(seed: int = 20261121) -> tuple[tuple[Covered, ...], frozenset[Pair]]:
    """The sample, and the pairs that no valid point was found for."""
    draw = random.Random(seed)
    order = wanted()
    draw.shuffle(order)
    open_, impossible, sample = dict.fromkeys(order), set(), []
    while open_:
        i, one, j, other = next(iter(open_))
        first = completed({i: one, j: other}, draw, 200)
        candidates = [first, *(completed({i: one, j: other}, draw, 30) for _ in range(12 if first else 0))]
        found = [c for c in candidates if c is not None]
        if not found:
            impossible.add((i, one, j, other))
            del open_[i, one, j, other]
            continue
        best = max(found, key=lambda c: len(pairs_of(c) & open_.keys()))
        for pair in pairs_of(best):
            open_.pop(pair, None)
        point = point_of(best)
        assert point is not None
        sample.append(Covered(best, point, int(str(best[-1]))))
    return tuple(sample), frozenset(impossible)
