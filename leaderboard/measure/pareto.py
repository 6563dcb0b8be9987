"""Pure: the Pareto front of strength and price, and the area it dominates.

Price is the logarithm of the goal's first cost, so that a factor costs the same anywhere.  The area is measured from
the base's strength and PRICE times its cost: a method that is no better than the base at that price has area 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.schema import Number
from bench.stats import Floats, with_interval
from leaderboard.measure.rank import PRICE, Series, draws
from leaderboard.read.board import ALL, Board


@dataclass(frozen=True)
class Area:
    """A method's dominated area for steering up and down."""

    series: Series
    up: Number
    down: Number
    on_front: tuple[int, ...]


def front(strength: Sequence[float], price: Sequence[float]) -> list[int]:
    """Indices of the points that no other point matches in both and beats in one, cheapest first."""
    order = sorted(range(len(price)), key=lambda i: (price[i], -strength[i]))
    found: list[int] = []
    best = -np.inf
    for i in order:
        if strength[i] > best:
            found.append(i)
            best = strength[i]
    return found


def dominated_area(gain: Floats, saving: Floats) -> Floats:
    """Area under the staircase through points (saving, gain), both (draws, points), above and right of the origin."""
    gain, saving = np.maximum(gain, 0), np.maximum(saving, 0)
    gain = np.where(saving > 0, gain, 0)
    order = np.argsort(-saving, axis=1)
    x = np.take_along_axis(saving, order, axis=1)
    highest = np.maximum.accumulate(np.take_along_axis(gain, order, axis=1), axis=1)
    width = x - np.concatenate([x[:, 1:], np.zeros((len(x), 1))], axis=1)
    return np.asarray((width * highest).sum(axis=1), dtype=np.float64)


def areas(board: Board, series: Sequence[Series], prompts: str = ALL) -> list[Area]:
    """Every method's area, the largest first; empty where the base or a metric is missing."""
    strength, price = board.per_prompt.get(board.goal.control), board.per_prompt.get(board.goal.price)
    if strength is None or price is None or board.base is None or len(strength.sets) != len(price.sets):
        return []
    s, s_drawn = draws(strength, prompts, range(len(board.places)))
    p, p_drawn = draws(price, prompts, range(len(board.places)))
    base = board.base
    ups, downs = pareto_places(board, prompts, up=True), pareto_places(board, prompts, up=False)
    found = []
    for one in series:
        at = [i for i in one.places if np.isfinite(s[i]) and np.isfinite(p[i])]
        if one.kind == "point" or not at:
            continue
        saved = (_saving(p[None, :], at, base), _saving(p_drawn, at, base))
        gained = (s[None, at] - s[base], s_drawn[:, at] - s_drawn[:, [base]])
        on_front = tuple(i for i in dict.fromkeys([*ups, *downs]) if i in at)
        found.append(Area(one, _area(gained, saved, 1.0, len(at)), _area(gained, saved, -1.0, len(at)), on_front))
    return sorted(found, key=lambda area: -((area.up if board.goal.sign > 0 else area.down).value or 0))


def _saving(price: Floats, at: Sequence[int], base: int) -> Floats:
    """How far below the price limit, as a share of log PRICE: 1 at the base's own, 0 at the limit."""
    return np.asarray(np.log(PRICE * price[:, [base]] / price[:, at]) / np.log(PRICE), dtype=np.float64)


def _area(gained: tuple[Floats, Floats], saved: tuple[Floats, Floats], sign: float, n: int) -> Number:
    value = float(dominated_area(sign * gained[0], saved[0])[0])
    return with_interval(value, dominated_area(sign * gained[1], saved[1]), n)


def pareto_places(board: Board, prompts: str = ALL, *, up: bool) -> list[int]:
    """The places on the front over all methods, cheapest first."""
    control, cost = board.goal.control, board.goal.price
    everywhere = range(len(board.places))
    known = [i for i in everywhere if None not in (board.value(i, control, prompts), board.value(i, cost, prompts))]
    sign = 1 if up else -1
    strength = [sign * (board.value(i, control, prompts) or 0.0) for i in known]
    price = [board.value(i, cost, prompts) or 0.0 for i in known]
    return [known[k] for k in front(strength, price)]
