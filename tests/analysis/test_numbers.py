"""How numbers are written."""

from __future__ import annotations

import pytest

from miras_search.analysis.numbers import (
    bytes_text,
    count_text,
    decimals_for,
    end_text,
    fixed,
    interval_decimals,
    p_text,
)


@pytest.mark.parametrize(
    ("spreads", "expected"), [([0.03], 3), ([0.004], 3), ([0.0004], 4), ([0.3], 2), ([300.0], 0), ([None, 0.0], 3)]
)
def test_decimals_follow_the_spread(spreads: list[float | None], expected: int) -> None:
    assert decimals_for(spreads) == expected


def test_decimals_without_spread_follow_the_values() -> None:
    assert decimals_for([None], [15_000.0, None]) == 0
    assert decimals_for([None], [0.8]) == 3


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.17, 0.25, 2),
        (0.205, 0.217, 3),
        (0.1, 0.13, 3),
        (5.0, 900.0, 0),
        (0.2, 0.2, 3),
        (0.0042, 0.13, 3),  # 0.004, not 0.00
        (-0.13, -0.0042, 3),
        (0.0, 0.13, 2),
        (1e-9, 0.13, 4),
    ],
)
def test_interval_decimals(low: float, high: float, expected: int) -> None:
    assert interval_decimals(low, high) == expected


def test_fixed_knows_no_negative_zero() -> None:
    assert fixed(-0.0001, 3) == "0.000"
    assert (end_text(-0.0001, 3), end_text(0.0001, 3), end_text(-0.0, 1)) == ("-0.000", "0.000", "0.0")
    assert fixed(-0.0001, 3, signed=True) == "-0.000", "drawn and ranked below the base, it is said to be so"
    assert fixed(-0.0, 3, signed=True) == "+0.000"
    assert fixed(0.2, 2, signed=True) == "+0.20"
    assert fixed(None, 2) == "-"


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "-"),
        (0.00001, "<0.001"),
        (0.0005, "0.001"),
        (0.25, "0.250"),
        (0.05, "0.050"),
        (0.0497, "0.0497"),
        (0.04999, "0.0499"),
        (0.0096, "0.0096"),
        (0.01, "0.010"),  # limits of marks
    ],
)
def test_p_text(p: float | None, text: str) -> None:
    assert p_text(p) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (12, "12"), (999, "999"), (999.9, "1.00k"), (12_345, "12.3k"), (1_234_567, "1.23M"), (0.5, "0.50")],
)
def test_count_text(value: float | None, text: str) -> None:
    assert count_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (512, "512 B"), (4096, "4.00 KiB"), (320_000_000, "305 MiB"), (2**40, "1024 GiB")]
)
def test_bytes_text(value: float | None, text: str) -> None:
    assert bytes_text(value) == text
