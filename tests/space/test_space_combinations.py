"""The count of combinations against a plain enumeration; couplings; watching what is read of an option."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from miras_search.space import combinations
from miras_search.space.combinations import DIMS, count, couplings, executions, variants
from miras_search.space.design import AXES, CHOICES, DesignPoint
from miras_search.space.fields import setting
from miras_search.space.rules import violations

FEW: list[dict[str, list[str]]] = [
    {
        "memory": ["matrix"],
        "bias": ["dot", "l2"],
        "retention": ["none", "kl"],
        "algorithm": ["gd", "multi_step"],
    },
    {
        "memory": ["matrix", "attention"],
        "bias": ["dot", "l2"],
        "retention": ["l2", "kl"],
        "algorithm": ["gd", "implicit", "newton", "nonparametric", "erase_write"],
    },
    {"memory": ["mlp", "vector"], "bias": ["l2"], "retention": ["none", "l2"], "algorithm": ["muon", "momentum"]},
    {"memory": ["mlp", "vector"], "bias": ["l2"], "retention": ["lq"], "algorithm": ["gd"]},
]


@pytest.fixture
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, list[str]]:
    """Only these options on each axis."""
    kept: Mapping[str, list[str]] = request.param
    for axis in CHOICES:
        for name in set(AXES[axis].options) - set(kept[axis]):
            monkeypatch.delitem(AXES[axis].options, name)
    return kept


def points() -> Iterator[DesignPoint]:
    """Every structural combination, one after the other."""
    choices = [[v for cls in AXES[axis].options.values() for v in variants(cls)] for axis in CHOICES]
    for memory, bias, retention, algorithm, execution in itertools.product(*choices, executions()):
        yield DesignPoint(memory, bias, retention, algorithm, execution=execution)


@pytest.mark.parametrize(
    "few", [FEW[2], *(pytest.param(few, marks=pytest.mark.slow) for few in (FEW[0], FEW[1], FEW[3]))], indirect=True
)
def test_the_count_is_that_of_an_enumeration(few: Mapping[str, list[str]]) -> None:
    everything = list(points())
    valid = [point for point in everything if not violations(point, *DIMS)]
    found = count()
    assert 0 < len(valid) < len(everything)
    assert (found.written, found.valid) == (len(everything), len(valid))
    # by canonical forms, since two hashes of twelve digits may be equal by chance
    assert found.different == len({point.canonical() for point in valid})


def test_there_are_thousands_of_valid_combinations() -> None:
    found = count()
    assert found.written > found.valid > found.different > 5000


def test_variants_are_the_settings_with_few_values_that_fit_together() -> None:
    mlp = AXES["memory"].options["mlp"]
    found = variants(mlp)
    assert len(found) == len(set(found))
    seen = {(option.activation, option.residual, option.norm, option.affine) for option in found}
    assert ("gelu", True, "layer", True) in seen
    assert not any(norm == "none" and affine for _, _, norm, affine in seen)
    assert {option.depth for option in found} == {mlp().depth}
    assert len(executions()) == len(set(executions())) == 18


def test_couplings_name_the_options_that_a_rule_is_about() -> None:
    found = couplings()
    refusing = {option for option, reasons in found.items() if any("dot bias is linear" in text for text in reasons)}
    assert refusing == {("bias", "dot"), ("algorithm", "multi_step"), ("memory", "matrix")}
    tangent = "an exact gradient of weights that are not refreshed inside the chunk"
    assert any(text.startswith(tangent) for text in found["retention", "kl"])
    assert not any(text.startswith(tangent) for text in found.get(("retention", "l2"), ()))
    assert any("layer norm over a single channel" in text for text in found["memory", "mlp"])


def test_couplings_follow_what_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("keeps the pairs themselves" in text for text in couplings()["memory", "attention"])
    monkeypatch.delitem(AXES["algorithm"].options, "nonparametric")
    assert ("algorithm", "nonparametric") not in couplings()


@dataclass(frozen=True, slots=True)
class _Odd:
    """Something to be watched."""

    name = "odd"
    size: int = setting(1, "a setting")
    other: int = setting(1, "another")

    @property
    def large(self) -> bool:
        return self.size > 1

    def fits(self, room: int) -> bool:
        return self.size <= room


def test_an_option_takes_down_what_is_read_of_it() -> None:
    read: set[str] = set()
    watched = combinations._Watched(_Odd(), read)
    assert watched.large is False
    assert read == {"large"}
    assert watched.fits(3)  # the method's own reading counts
    assert read == {"large", "fits", "size"}
    assert getattr(watched, "norm", "none") == "none"
    assert combinations._cases([_Odd(1, 1), _Odd(1, 2), _Odd(2, 1)], read) == [0, 0, 1]
    assert watched == _Odd()
    assert read == {"large", "fits", "size", "norm", ""}
    assert combinations._cases([_Odd(1, 1), _Odd(1, 2), _Odd(2, 1)], read) == [0, 1, 2]


def test_asking_for_the_class_of_an_option_reads_all_of_it() -> None:
    read: set[str] = set()
    assert isinstance(combinations._Watched(_Odd(), read), _Odd)
    assert read == {""}
    assert dataclasses.is_dataclass(_Odd)
