"""A still picture's arithmetic: values -> positions, round ticks, names that do not cover each other."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

WIDTH = 760
LEFT, RIGHT, TOP = 56, 540, 14  # of the plane; names stand right of it
LINE = 19  # from one name to the next


@dataclass(frozen=True, kw_only=True)
class Still:
    """What every still picture has, in pixels: its size, its plane, and what stands on the plane's axes."""

    height: ClassVar[int]
    bottom: ClassVar[int]
    width: ClassVar[int] = WIDTH
    left: ClassVar[int] = LEFT
    right: ClassVar[int] = RIGHT
    top: ClassVar[int] = TOP
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def scale(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    """Values -> positions, with a margin of a twentieth at both ends."""
    low, high = min(values), max(values)
    margin = (high - low) / 20 or 1.0
    low, high = low - margin, high + margin
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 1)


def ticks(values: Sequence[float], at: Callable[[float], float], low: int, high: int) -> tuple[tuple[float, str], ...]:
    return tuple((at(value), f"{value:g}") for value in values if low <= at(value) <= high)


def round_values(values: Sequence[float]) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten: three to eight over the values' span."""
    span = max(values) - min(values) or 1.0
    step = next(s for s in (10.0 ** math.floor(math.log10(span)) * f for f in (0.1, 0.2, 0.5, 1, 2)) if span / s <= 7)
    first = math.ceil(min(values) / step) - 1
    return [round((first + k) * step, 12) for k in range(int(span / step) + 3)]


def apart(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """The heights, moved so that names stand LINE apart, or closer where there are many, all of them in the plane."""
    line = min(LINE, (bottom - top) / max(1, len(heights) - 1))
    order, found = sorted(range(len(heights)), key=lambda k: (heights[k], k)), list(heights)
    above, below = top - line, bottom + line
    for k in order:
        found[k] = above = max(found[k], above + line)
    for k in reversed(order):
        found[k] = below = min(found[k], below - line)
    return [round(height, 1) for height in found]
