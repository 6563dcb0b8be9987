"""How the leaderboard writes numbers: one format for pages, figures, cards and the terminal."""

from typing import Any

DIGITS = 5
MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


def number(value: float | None) -> str:
    """A number as every table shows it: three figures or more, two below a hundredth, and a true minus sign."""
    if value is None:
        return NONE
    size = abs(value)
    if 0 < size < 0.01:
        return f"{value:.2g}".replace("-", MINUS)
    digits = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 2 else 3
    return f"{value:,.{digits}f}".replace("-", MINUS)


def short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


def plain(value: Any) -> str:
    """A parameter's value as a reader writes it: 0.5, 1, -2."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:g}"
