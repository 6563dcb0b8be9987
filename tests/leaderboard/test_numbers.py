"""One format for numbers, with and without an interval."""

import pytest

from bench.schema import Number
from leaderboard.numbers import number, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (45.678, "45.7"), (2.345, "2.35"), (0.05, "0.050"), (-0.5, "\N{MINUS SIGN}0.500"),
     (0.00123, "0.0012"), (0.0000123, "1.2e-05"), (0, "0.000"), (-0.0, "0.000"), (None, "\N{EN DASH}")],
)  # fmt: skip
def test_by_hand(value: float | None, text: str) -> None:
    assert number(value) == text


def test_an_interval_or_a_reason_stands_beside() -> None:
    assert shown(Number(0.5, 0.25, 2.0, 9, 9)) == "0.500 (0.250 to 2.00)"
    assert shown(Number(3, 1, None)) == "3.00"
    assert shown(Number(None, reason="not timed")) == "\N{EN DASH} (not timed)"
