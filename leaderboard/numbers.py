"""How the leaderboard writes numbers: one format for pages, figures, cards and the terminal."""

from typing import Any

from bench.schema import Number

DIGITS = 5
SHORT_TEXT = 24  # characters of a parameter's text that a name shows
MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"
DECIMALS = ((1000, 0), (10, 1), (2, 2), (0.01, 3))  # from this size on, so many; below the last, FIGURES
FIGURES = 2
RULE = {"decimals": DECIMALS, "figures": FIGURES, "minus": MINUS, "none": NONE}  # for charts.js, which writes likewise


def number(value: float | None) -> str:
    """A number as every table shows it: three figures or more, two below a hundredth, and a true minus sign."""
    if value is None:
        return NONE
    size, sign = abs(value), MINUS if value < 0 else ""
    digits = next((digits for least, digits in DECIMALS if size >= least), DECIMALS[-1][1])
    return sign + (f"{size:.{FIGURES}g}" if 0 < size < DECIMALS[-1][0] else f"{size:,.{digits}f}")


def between(x: Number) -> str:
    """The ends of an interval, or nothing."""
    return "" if x.low is None or x.high is None else f"{number(x.low)} to {number(x.high)}"


def shown(x: Number) -> str:
    """A number with its interval, or with the reason why there is none."""
    beside = between(x) if x.value is not None else x.reason
    return f"{number(x.value)} ({beside})" if beside else number(x.value)


def short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


def plain(value: Any, length: int | None = None) -> str:
    """A parameter's value as a reader writes it: 0.5, 1, -2; a text longer than `length` by its beginning."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = str(value)
        return text if length is None or len(text) <= length else f"{text[:length].rstrip()}\N{HORIZONTAL ELLIPSIS}"
    return f"{value:g}"
