"""Designs beyond one axis at a time and all combinations: what they promise is counted on their cells."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest

from miras_search.space.presets import preset
from miras_search.study.covering import cover
from miras_search.study.designs import Coverage, Orthogonal
from miras_search.study.fraction import DoesNotFit, fraction
from miras_search.study.loader import Study, StudyError, loads

HEAD = "name: t\ntask: mqar\n"
PARTS = "base: titans_lmm\nvary: {retention: [none], algorithm: [gd], model.conv: [0]}\n"
AXES = {
    "memory": "[matrix, mlp]",
    "bias": "[dot, l2, kl]",
    "retention": "[none, l2, kl]",
    "algorithm": "[gd, momentum, newton]",
}
CROSSED = f"base: delta_net\nvary: {{{', '.join(f'{path}: {given}' for path, given in AXES.items())}}}\n"
TWO = "bias: [dot, l2], retention: [none, l2], algorithm: [momentum, gd], train.lr: [1e-3, 1e-2]"
HALF = f"base: delta_net\nvary: {{{TWO}}}\n"


def read(text: str) -> Study:
    return loads(HEAD + text, "t.yaml")


def problems(text: str) -> list[str]:
    with pytest.raises(StudyError) as caught:
        read(text)
    return str(caught.value).splitlines()


def test_leave_one_out_turns_each_part_of_the_base_off_alone() -> None:
    study = read(PARTS + "design: leave_one_out\n")
    whole = preset("titans_lmm")
    assert [(cell.name, dict(cell.changes)) for cell in study.cells] == [
        ("titans_lmm", {}),
        ("none", {"retention": "none"}),
        ("gd", {"algorithm": "gd"}),
        ("conv=0", {"model.conv": "0"}),
    ]
    assert [cell.design for cell in study.cells] == [
        whole,
        whole.changed("retention", "none"),
        whole.changed("algorithm", "gd"),
        whole,
    ]
    assert [cell.model.conv for cell in study.cells] == [4, 4, 4, 0]


def test_add_one_in_is_the_mirror_of_the_same_file() -> None:
    study = read(PARTS + "design: add_one_in\ncontrols: [no_write]\n")
    whole = preset("titans_lmm")
    plain = whole.changed("retention", "none").changed("algorithm", "gd")
    assert [(cell.role, cell.name, dict(cell.changes)) for cell in study.cells] == [
        ("base", "all off", {}),
        ("cell", "l2", {"retention": "l2"}),
        ("cell", "momentum", {"algorithm": "momentum"}),
        ("cell", "conv=4", {"model.conv": "4"}),
        ("control", "all off + no_write", {"control": "no_write"}),
    ]
    assert [cell.design for cell in study.cells[:4]] == [
        plain,
        whole.changed("algorithm", "gd"),
        whole.changed("retention", "none"),
        plain,
    ]
    assert [cell.model.conv for cell in study.cells[:4]] == [0, 0, 0, 4]
    assert (study.base, study.model) == (study.cells[0].design, study.cells[0].model)


def test_parts_have_one_off_level_that_the_base_has_not() -> None:
    text = "base: delta_net\ndesign: leave_one_out\nvary: {bias: [dot, kl], retention: [none], preset: [gla]}\n"
    assert problems(text) == [
        "t.yaml:5:8: vary.bias: 2 levels: name the one that means off; what the base has means on",
        "t.yaml:5:37: vary.retention.0: the base has retention at none already: nothing to leave out or add",
        "t.yaml:5:44: vary.preset: a whole design is not a part that can be off: name the parts",
    ]


def test_every_pair_of_levels_is_in_a_cell_or_refused_by_every_combination() -> None:
    study, whole = read(CROSSED + "design: pairwise\n"), 54
    found = study.array
    assert isinstance(found, Coverage)
    levels = [dict(cell.levels) for cell in study.cells]
    met = {frozenset(pair) for row in levels for pair in itertools.combinations(row.items(), 2)}
    assert (len(met), found.covered, found.pairs, found.of) == (found.covered, found.covered, 45, whole)
    assert found.covered + len(found.refused) == found.pairs
    assert len(study.cells) < whole / 3
    for pair, reason in found.refused:  # the factorial of the two levels alone, which a rule refuses too
        one, other = (part.split("=") for part in pair.split(" with "))
        free = {path: given for path, given in AXES.items() if path not in (one[0], other[0])}
        fixed = f"{one[0]}: [{one[1]}], {other[0]}: [{other[1]}]"
        for rest in itertools.product(*(given.strip("[]").split(", ") for given in free.values())):
            others = ", ".join(f"{path}: [{level}]" for path, level in zip(free, rest, strict=True))
            told = problems(f"base: delta_net\ndesign: factorial\nvary: {{{fixed}, {others}}}\n")
            assert len(told) >= 1
        assert reason


def test_a_level_that_no_combination_can_have_is_an_error() -> None:
    text = "base: delta_net\ndesign: pairwise\nmodel: {value_dim: 8}\nvary: {memory: [matrix, mlp], bias: [dot, l2]}\n"
    (told,) = problems(text)
    assert told.startswith("t.yaml:6:25: vary.memory.1: no combination has this level: ")


def test_the_same_file_gives_the_same_cells() -> None:
    text = CROSSED + "design: pairwise\n"
    assert read(text).space_hash == read(text).space_hash


def test_the_base_is_a_row_of_the_array_where_its_levels_are_listed() -> None:
    for design in ("pairwise", "fractional"):
        study = read(HALF + f"design: {design}\n")
        assert study.base_name == "bias=l2 / retention=none / gd / lr=0.01"
        rows = Counter(tuple(cell.levels.values()) for cell in study.cells)
        assert max(rows.values()) == 1


def test_a_fraction_is_balanced_as_its_resolution_says() -> None:
    study = read(HALF + "design: fractional\n")
    assert study.array == Orthogonal(8, 16, 4)
    rows = [list(cell.levels.values()) for cell in study.cells]
    for axes in itertools.combinations(range(4), 3):
        assert Counter(tuple(row[axis] for axis in axes) for row in rows).most_common(9)[-1][1] == 1
        assert len({tuple(row[axis] for axis in axes) for row in rows}) == 8


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "vary: {bias: [dot, l2, kl], retention: [none, l2], algorithm: [gd, momentum]}\n",
            "t.yaml:4:1: design: axes of 3, 2, 2 levels: an orthogonal fraction needs 2, 4 or 8 levels on every axis, "
            "or 3 or 9, or 5, or another power of one prime; use pairwise, or other levels",
        ),
        (
            "vary: {bias: [dot, l2], retention: [none, l2]}\n",
            "t.yaml:4:1: design: 2 axes leave nothing to save; use factorial",
        ),
        (
            "resolution: 4\nvary: {bias: [dot, l2], retention: [none, l2], algorithm: [gd, momentum]}\n",
            "t.yaml:4:1: design: no fraction of resolution 4 is smaller than the 8 cells of the factorial; use "
            "factorial, or more axes",
        ),
    ],
)
def test_a_fraction_that_does_not_fit_is_refused_in_one_line(text: str, what: str) -> None:
    assert problems("base: delta_net\ndesign: fractional\n" + text) == [what]


def test_a_resolution_and_pairs_need_their_design() -> None:
    assert problems("base: delta_net\nresolution: 4\n") == [
        "t.yaml:4:1: resolution: it belongs to design: fractional; drop it"
    ]
    assert problems("base: delta_net\ndesign: pairwise\nvary: {bias: [dot]}\n") == [
        "t.yaml:4:1: design: one axis has no pairs; use one_at_a_time, or vary more axes"
    ]


@pytest.mark.parametrize(
    ("sizes", "most"), [((4, 4, 4, 4), 20), ((4, 4, 4, 4, 3, 2), 22), ((2,) * 10, 10), ((1, 3, 2), 6)]
)
def test_coverings_are_no_larger_than_those_of_a_known_generator(sizes: tuple[int, ...], most: int) -> None:
    found = cover(sizes, lambda row: None, (0,) * len(sizes))
    assert found.rows[0] == (0,) * len(sizes)
    assert len(found.rows) <= most
    for (i, a), (j, b) in itertools.combinations(enumerate(sizes), 2):
        assert {(row[i], row[j]) for row in found.rows} == set(itertools.product(range(a), range(b)))
    assert found.covered == found.pairs == sum(a * b for a, b in itertools.combinations(sizes, 2))


def test_a_refused_pair_is_told_with_the_reason_met_most() -> None:
    def refusal(row: tuple[int, ...]) -> str | None:
        return "one and two do not go together" if row[:2] == (0, 1) else "no" if row == (0, 1, 2) else None

    found = cover((2, 2, 3), refusal)
    assert found.refused == {(0, 0, 1, 1): "one and two do not go together"}
    assert found.covered == found.pairs - 1


@pytest.mark.parametrize(
    ("sizes", "resolution", "runs", "reached"),
    [
        ((2, 2, 2), 3, 4, 3),
        ((2,) * 7, 3, 8, 3),
        ((2,) * 8, 4, 16, 4),
        ((2,) * 5, 5, 16, 5),
        ((3,) * 4, 3, 9, 3),
        ((4,) * 5, 3, 16, 3),
        ((4, 2, 2, 2), 3, 8, 3),
        ((5, 5, 5), 3, 25, 3),
    ],
)
def test_fractions_are_the_textbook_ones(sizes: tuple[int, ...], resolution: int, runs: int, reached: int) -> None:
    found = fraction(sizes, resolution)
    assert (len(found.rows), found.resolution, found.of) == (runs, reached, math.prod(sizes))
    assert found.rows[0] == (0,) * len(sizes)
    for i, j in itertools.combinations(range(len(sizes)), 2):
        met = Counter((row[i], row[j]) for row in found.rows)
        assert set(met.values()) == {runs // (sizes[i] * sizes[j])}


def test_levels_of_different_primes_have_no_fraction() -> None:
    for sizes in ((2, 3, 2), (6, 2, 2), (1, 2, 2)):
        with pytest.raises(DoesNotFit, match="one prime; use pairwise"):
            fraction(sizes)
