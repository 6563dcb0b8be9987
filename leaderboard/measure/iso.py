"""Iso-control ranking: methods compared where they control equally strongly, since alpha means something else in each.

Half of the prompts choose each method's setting that reaches a target; the other half, which chose nothing,
measures what that setting costs.  Nothing is extrapolated: a target outside the measured settings is not reached.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bench.schema import ENSEMBLES, Number, Recipe
from bench.stats import Floats, bootstrap_weights, with_interval
from evaluators.protocols import twins
from leaderboard.measure.rank import Series
from leaderboard.numbers import plain
from leaderboard.read.board import ALL, Board, PerPrompt

FURTHER = "further at every measured setting"


@dataclass(frozen=True)
class Setting:
    """A method's parameter that reaches a target: a measured place, or a point between two measured neighbours."""

    left: int
    right: int
    share: float  # 0: at left, 1: at right
    label: str
    models: int  # per token


@dataclass(frozen=True)
class Reached:
    """One method at one target, measured on the half that did not choose; `over` is the difference to the cheapest."""

    series: Series
    setting: Setting | None
    reason: str | None = None
    metrics: tuple[tuple[str, Number], ...] = ()
    over: Number | None = None

    @cached_property
    def by_metric(self) -> dict[str, Number]:
        return dict(self.metrics)


@dataclass(frozen=True)
class Target:
    value: float
    rows: tuple[Reached, ...]

    @property
    def reached(self) -> bool:
        return any(row.setting is not None for row in self.rows)


def halves(sums: PerPrompt, prompts: str = ALL, seed: int = 0) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(choosing, reporting) masks over prompts: each set is shuffled and split in two, always alike."""
    rng = np.random.default_rng(seed)
    choosing = np.zeros(len(sums.sets), bool)
    wanted = sums.rows(prompts)
    for name in sorted(set(sums.sets[wanted].tolist())):
        members = rng.permutation(np.flatnonzero(sums.sets == name))
        choosing[members[: len(members) // 2]] = True
    return choosing, wanted & ~choosing


def rank_at_targets(board: Board, series: Sequence[Series], prompts: str = ALL) -> tuple[list[Target], list[Target]]:
    """Targets for steering up and for steering down: the goal's, and their mirror images within [0, 1]."""
    control, targets = board.per_prompt.get(board.goal.control), board.goal.targets
    if control is None or control.rows(prompts).sum() < 4:
        return [], []
    half = choosing_half(board, prompts)
    mirrored = tuple(round(1 - value, 12) for value in targets if 0 <= value <= 1)
    above, below = (targets, mirrored)[:: board.goal.sign]
    up = [_target(board, series, prompts, half, value, up=True) for value in above]
    return up, [_target(board, series, prompts, half, value, up=False) for value in below]


def reported(board: Board) -> list[str]:
    """The goal's metrics with sums by prompt; one that has none gives its place to what another protocol counts."""
    best = (next((m for m in (name, *twins(name)) if m in board.per_prompt), None) for name in board.columns)
    return list(dict.fromkeys(name for name in best if name is not None))


def _target(board: Board, series: Sequence[Series], prompts: str, half: "Half", value: float, *, up: bool) -> Target:
    chosen = [(s, choose(board, s, half, value, up=up)) for s in series]
    reached = [(s, setting) for s, setting in chosen if setting is not None]
    found = reports(board, [setting for _, setting in reached], prompts)
    rows = [Reached(s, setting, metrics=report) for (s, setting), report in zip(reached, found, strict=True)]
    missed = [Reached(s, None, _why_not(s, half, value, up=up)) for s, setting in chosen if setting is None]
    return Target(
        value, tuple(_with_differences(board, [*sorted(rows, key=lambda row: _price(board, row)), *missed], prompts))
    )


def _why_not(series: Series, half: "Half", target: float, *, up: bool) -> str:
    found = half.strength[list(series.places)]
    found = found[np.isfinite(found)]
    beyond = found >= target if up else found <= target
    return FURTHER if len(found) and beyond.all() else "not reached by a measured setting"


def _price(board: Board, row: Reached) -> float:
    cost = row.by_metric.get(board.goal.price)
    return np.inf if cost is None or cost.value is None else cost.value


@dataclass(frozen=True)
class Half:
    """Every place on the half that chooses: strength, and log price, zeros where that is not stored; (places,)."""

    strength: Floats
    price: Floats


def choosing_half(board: Board, prompts: str = ALL) -> Half:
    control, cost = board.per_prompt[board.goal.control], board.per_prompt.get(board.goal.price)
    choosing, _ = halves(control, prompts)
    weights = choosing[None, :].astype(np.float64)
    if cost is None or len(cost.sets) != len(choosing):
        return Half(control.values(weights)[0], np.zeros(len(board.places)))
    return Half(control.values(weights)[0], np.nan_to_num(np.log(cost.values(weights)[0]), nan=np.inf))


def choose(board: Board, series: Series, half: Half, target: float, *, up: bool) -> Setting | None:
    """The cheapest setting that reaches the target on the choosing half.

    A curve is linear between measured neighbours, and the target is met where it crosses; a plane or a single model has
    only its measured places.  Cheapest: the lowest price, interpolated likewise.
    """
    strength = half.strength
    places = [i for i in series.places if np.isfinite(strength[i])]
    if series.kind == "curve":
        found = crossings(board, series, places, strength, target)
    else:
        met = [i for i in places if (strength[i] >= target if up else strength[i] <= target)]
        found = [Setting(i, i, 0.0, inside(board, i), board.places[i].recipe.models_per_token) for i in met]
    return min(found, key=lambda s: value_at(half.price, s), default=None)


def value_at(values: Floats, setting: Setting) -> float:
    """Linear between a setting's neighbours; at one of them its own value alone, since the other may be infinite."""
    if setting.share == 0:
        return float(values[setting.left])
    return float((1 - setting.share) * values[setting.left] + setting.share * values[setting.right])


def inside(board: Board, place: int) -> str:
    """A place's parameters alone."""
    return board.places[place].label.removeprefix(board.places[place].method).strip("()") or "as it is"


def crossings(board: Board, series: Series, places: Sequence[int], strength: Floats, target: float) -> list[Setting]:
    found = []
    for left, right in pairwise(places):
        a, b = strength[left] - target, strength[right] - target
        if a * b > 0 or a == b:
            continue
        share = float(a / (a - b))
        x = [float(board.places[i].params[series.axis]) for i in (left, right)]
        at = plain(round((1 - share) * x[0] + share * x[1], 3))
        models = models_between(board.places[left].recipe, board.places[right].recipe)
        found.append(Setting(left, right, share, f"{series.axis}={at}", models))
    return found


def models_between(left: Recipe, right: Recipe) -> int:
    """Models per token between two neighbours: each may lack a member whose coefficient is 0 just there."""
    joined = left.coefficients.keys() | right.coefficients.keys() if left.space in ENSEMBLES else ()
    return max(left.models_per_token, right.models_per_token, len(joined))


def measure(sums: PerPrompt, settings: Sequence[Setting], rows: NDArray[np.bool_]) -> tuple[Floats, Floats, int]:
    """A metric at each setting over these prompts: values (settings,), bootstrap (draws, settings), number of prompts.

    Linear between neighbours, in the logarithm for an exponential.  All settings share their resamples.
    """
    part = sums.part([*(s.left for s in settings), *(s.right for s in settings)], rows)
    n, share = len(part.sets), np.array([s.share for s in settings])

    def between(values: Floats) -> Floats:  # (draws, 2 settings) -> (draws, settings)
        ends = np.log(values) if sums.transform == "exp" else values
        mixed = (1 - share) * ends[:, : len(share)] + share * ends[:, len(share) :]
        return np.asarray(np.exp(mixed) if sums.transform == "exp" else mixed)

    return between(part.values(np.ones((1, n))))[0], between(part.values(bootstrap_weights(n))), n


def reports(board: Board, settings: Sequence[Setting], prompts: str) -> list[tuple[tuple[str, Number], ...]]:
    """For each setting (metric, estimate on the half that did not choose)."""
    columns = []
    for metric in reported(board) if settings else ():
        sums = board.per_prompt.get(metric)
        if sums is not None:
            values, drawn, n = measure(sums, settings, halves(sums, prompts)[1])
            columns.append([(metric, with_interval(values[k], drawn[:, k], n)) for k in range(len(settings))])
    return [tuple(row) for row in zip(*columns, strict=True)]


def _with_differences(board: Board, rows: Sequence[Reached], prompts: str) -> list[Reached]:
    """Each row's price over the cheapest row's, paired on the same prompts, as a ratio."""
    sums = board.per_prompt.get(board.goal.price)
    settings = [row.setting for row in rows if row.setting is not None]  # the cheapest is the first row
    if sums is None or not settings:
        return list(rows)
    values, drawn, n = measure(sums, settings, halves(sums, prompts)[1])
    ratios = [with_interval(values[k] / values[0], drawn[:, k] / drawn[:, 0], n) for k in range(1, len(settings))]
    later = rows[len(settings) :]  # those that do not reach the target
    return [rows[0], *(replace(row, over=over) for row, over in zip(rows[1:], ratios, strict=False)), *later]
