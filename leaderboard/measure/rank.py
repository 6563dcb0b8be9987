"""Pure: a board -> what one look needs.  Series, reach, monotonicity, loss barrier; no files, no pages.

A derived number carries an interval from the same prompt bootstrap as the estimates: all places of a series are
resampled together, because they were measured on the same prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.schema import Goal, Number, canonical_json
from bench.stats import Floats, bootstrap_weights, with_interval
from leaderboard.numbers import SHORT_TEXT, plain
from leaderboard.read.board import ALL, Board, PerPrompt, Place

PRICE = 1.5  # how many times the base's price, as a rule its perplexity, a method may spend
KINDS = ("curve", "plane", "other", "point", "bridge")


@dataclass(frozen=True)
class Series:
    """The places of one method that differ in nothing but what is swept.

    kind: `curve` has one swept parameter (`axis`), `plane` has alpha and beta, `point` has none, `bridge` leads from
    the base to a model of another pre-training and steers nothing, `other` is the rest.
    """

    method: str
    name: str
    kind: str
    axis: str
    places: tuple[int, ...]  # indices into the board's places, by the swept parameter
    slot: int  # index, colour and marker; curves come first

    def setting(self, params: Mapping[str, Any]) -> str:
        """The swept parameters of one of its places; the fixed ones are in the name."""
        swept = [key for key in self.axis.split(",") if key in params]
        return ", ".join(f"{key}={plain(params[key])}" for key in swept) or "as it is"

    def spaces(self, board: Board) -> list[str]:
        """Where its places are mixed."""
        return sorted({board.places[i].recipe.space for i in self.places})

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() or c in "_-" else "-" for c in self.name).strip("-")


@dataclass(frozen=True)
class Row:
    """One line of the table of methods."""

    series: Series
    best: int | None
    worst: int | None
    reason: str | None
    spearman: Number
    barrier: Number
    models_per_token: int


def find_series(board: Board) -> list[Series]:
    """Methods are recognised by their parameters, so that a plugin's method shows up like ours."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i, place in enumerate(board.places):
        axis, fixed = _split(place.params)
        groups.setdefault((place.method, axis, canonical_json(fixed)), []).append(i)
    fixed_of: dict[str, list[dict[str, Any]]] = {}
    for (method, _, _), places in groups.items():
        fixed_of.setdefault(method, []).append(_split(board.places[places[0]].params)[1])
    ordered = sorted(groups.items(), key=lambda group: KINDS.index(_kind(board, group[0][1], group[1])))
    return [
        _series(board, slot, method, axis, places, fixed_of[method])
        for slot, ((method, axis, _), places) in enumerate(ordered)
    ]


def steering(series: Sequence[Series]) -> list[Series]:
    """Those that compete: a bridge has no attribute to steer and leaves the range of the others."""
    return [s for s in series if s.kind != "bridge"]


def _series(
    board: Board, slot: int, method: str, axis: str, places: list[int], all_fixed: Sequence[dict[str, Any]]
) -> Series:
    """`all_fixed`: what does not vary in each of the method's series."""
    _, fixed = _split(board.places[places[0]].params)
    told = {key: _told(value, [other.get(key) for other in all_fixed]) for key, value in fixed.items()}
    inside = ", ".join(f"{key}={text}" for key, text in told.items() if text is not None)
    name = f"{method} ({inside})" if inside else method
    order = sorted(places, key=lambda i: _order(board.places[i], axis))
    return Series(method, name, _kind(board, axis, places), axis, tuple(order), slot)


def _told(value: Any, of_all: Sequence[Any]) -> str | None:
    """How a series' name tells a fixed parameter; None where that is no number and the same in all of the method's.

    `of_all`: the parameter in each of the method's series.  A text is cut, so that it still differs from the others.
    """
    if not isinstance(value, int | float) and all(other == value for other in of_all):
        return None
    length = SHORT_TEXT
    while any(other != value and str(other)[:length] == str(value)[:length] for other in of_all):
        length += SHORT_TEXT
    return plain(value, length)


def _split(params: Any) -> tuple[str, dict[str, Any]]:
    """The swept parameters, joined by a comma, and the rest."""
    numeric = [k for k, v in params.items() if isinstance(v, int | float) and not isinstance(v, bool)]
    if "alpha" in numeric and "beta" in numeric:
        axis = ["alpha", "beta"]
    elif "alpha" in numeric:
        axis = ["alpha"]
    else:
        axis = numeric
    return ",".join(axis), {k: v for k, v in params.items() if k not in axis}


def _kind(board: Board, axis: str, places: Sequence[int]) -> str:
    if not axis:
        return "point"
    if axis == "alpha,beta":
        return "plane"
    mixed = {name for i in places for name in board.places[i].recipe.coefficients}
    if "other" in mixed and mixed <= {"base", "other"}:
        return "bridge"
    return "curve" if "," not in axis else "other"


def _order(place: Place, axis: str) -> tuple[float, ...]:
    return tuple(float(place.params[key]) for key in axis.split(",") if key)


# ---------------------------------------------------------------------------------------------- the table


def rank(board: Board, series: Sequence[Series], prompts: str = ALL) -> list[Row]:
    """One row a series, the largest reach first; series without one come last."""
    rows = [_row(board, s, prompts) for s in series]

    def reach(row: Row) -> float:
        value = None if row.best is None else board.value(row.best, board.goal.control, prompts)
        return -np.inf if value is None else board.goal.sign * value

    return sorted(rows, key=lambda row: (-reach(row), row.series.name))


def _row(board: Board, series: Series, prompts: str) -> Row:
    ranked, reason = affordable(board, series.places, prompts)
    return Row(
        series=series,
        best=ranked[-1] if ranked else None,
        worst=ranked[0] if len(ranked) > 1 else None,
        reason=reason,
        spearman=monotonicity(board, series, prompts),
        barrier=barrier(board, series, prompts),
        models_per_token=max(board.places[i].recipe.models_per_token for i in series.places),
    )


def affordable(
    board: Board, places: Sequence[int], prompts: str, goal: Goal | None = None
) -> tuple[list[int], str | None]:
    """The places that cost at most PRICE times what the base does, weakest first, and what is to be said about it."""
    goal = goal or board.goal
    control, cost = goal.control, goal.price
    strength = {i: value for i in places if (value := board.value(i, control, prompts)) is not None}
    scored = sorted(strength, key=lambda i: goal.sign * strength[i])
    limit = price_limit(board, prompts, cost)
    if not scored:
        return [], f"no {control} stored"
    if limit is None:
        return scored, f"no base {cost} stored: reach without a limit"
    kept = [i for i in scored if (board.value(i, cost, prompts) or np.inf) <= limit]
    return kept, None if kept else f"no point at {PRICE:g} times the base's {cost} or less"


def price_limit(board: Board, prompts: str, cost: str) -> float | None:
    value = None if board.base is None else board.value(board.base, cost, prompts)
    return None if value is None else PRICE * value


def time_over_base(board: Board, series: Series) -> Number:
    """The measured time per token over the base's, at the smallest stored batch, of what mixes like this series."""
    rows = [r for r in lines_of(board, series) if r["ratio_to_base"] is not None]
    timed = [r for r in rows if r["metric"] == "time_per_output_token_s"]
    if not timed:
        return Number(None, reason="not timed")
    row = min(timed, key=lambda r: (r["batch_size"], r["new_tokens"], r["metric"]))
    return Number(row["ratio_to_base"], row["ratio_low"], row["ratio_high"], row["n_rounds"], row["n_rounds"])


def lines_of(board: Board, series: Series) -> list[Mapping[str, Any]]:
    """The ledger's lines of what mixes like this series.

    A method that mixes in several ways has a line in the ledger for each; its controls at alpha 0 are not the method,
    nor are a draft's other strengths.
    """
    recipes = [board.places[i].recipe for i in series.places]
    ways = {(recipe.space, recipe.filter_p, recipe.draft and recipe.draft.k) for recipe in recipes}

    def same(row: Mapping[str, Any]) -> bool:
        mixed = row["recipe"] or {}
        named = row["made_by"] == series.method and row["role"] in ("base", "method")
        return named and (mixed.get("space"), mixed.get("filter_p"), (mixed.get("draft") or {}).get("k")) in ways

    return [row for row in board.overhead if same(row)]


# ---------------------------------------------------------------------------------------------- derived numbers


def draws(sums: PerPrompt, prompts: str, places: Sequence[int]) -> tuple[Floats, Floats]:
    """The metric at these places: as measured (places,), and resampled by prompt (draws, places)."""
    part = sums.part(places, sums.rows(prompts))
    n = len(part.sets)
    return part.values(np.ones((1, n)))[0], part.values(bootstrap_weights(n))


def monotonicity(board: Board, series: Series, prompts: str = ALL) -> Number:
    """Spearman's rank correlation of the control with the swept parameter of a curve."""
    metric = board.goal.control
    if series.kind != "curve":
        return Number(None, reason="not a one-parameter method")
    places = [i for i in series.places if board.value(i, metric, prompts) is not None]
    if len(places) < 3:
        return Number(None, reason="fewer than three points")
    x = np.array([float(board.places[i].params[series.axis]) for i in places])
    values = np.array([[board.value(i, metric, prompts) for i in places]], dtype=np.float64)
    value, drawn = float(spearman(values, x)[0]), np.empty(0)
    if metric in board.per_prompt:
        drawn = spearman(draws(board.per_prompt[metric], prompts, places)[1], x)
    found = with_interval(value, drawn, len(places))
    return found if found.value is not None else replace(found, reason="constant")


def spearman(values: Floats, x: Floats) -> Floats:
    """Rank correlation of each row of values (draws, n) with x (n,); NaN for a constant row."""
    a, b = _ranks(values), _ranks(x[None, :])
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    below = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    found = np.divide((a * b).sum(axis=1), below, out=np.full(len(a), np.nan), where=below > 0)
    return np.asarray(found, dtype=np.float64)


def _ranks(values: Floats) -> Floats:
    """Ranks with ties shared: (the number below + half the number of equals)."""
    below = (values[:, None, :] < values[:, :, None]).sum(axis=2)
    equal = (values[:, None, :] == values[:, :, None]).sum(axis=2)
    return np.asarray(below + (equal - 1) / 2, dtype=np.float64)


def barrier(board: Board, series: Series, prompts: str = ALL, metric: str | None = None) -> Number:
    """The loss barrier between the experts: the largest rise of a metric, by default the price, above their chord.

    max over s between them of m(s) - [(1 - t) m(antiexpert) + t m(expert)] (Frankle et al. 2020; Entezari et al. 2021).
    """
    ends = _experts(board, series)
    if ends is None:
        return Number(None, reason="does not pass through both experts")
    return chord_rise(board, series, ends, metric or board.goal.price, prompts)


def chord_rise(board: Board, series: Series, ends: tuple[int, int], metric: str, prompts: str = ALL) -> Number:
    """The largest rise of a metric above the straight line between two places of a curve, over those between them."""
    first, last = ends
    start, stop = (float(board.places[i].params[series.axis]) for i in ends)
    inside = [i for i in series.places if start < float(board.places[i].params[series.axis]) < stop]
    path = [first, *inside, last]
    values = [board.value(i, metric, prompts) for i in path]
    if len(path) < 3 or any(v is None for v in values):
        return Number(None, reason=f"{metric} is not stored between the ends")
    at = np.array([float(board.places[i].params[series.axis]) for i in path])
    t = (at - start) / (stop - start)
    value, drawn = float(_rise(np.array([values], dtype=np.float64), t)[0]), np.empty(0)
    if metric in board.per_prompt:
        drawn = _rise(draws(board.per_prompt[metric], prompts, path)[1], t)
    return with_interval(value, drawn, len(path) - 2)


def losses(board: Board) -> list[str]:
    """The test losses of the mixed model, one a set of sentences."""
    return [name for name in board.metrics if name.startswith("nll_")]


def _experts(board: Board, series: Series) -> tuple[int, int] | None:
    if series.kind != "curve":
        return None
    pure = {tuple(board.places[i].recipe.coefficients.items()): i for i in series.places}
    first, last = pure.get((("antiexpert", 1.0),)), pure.get((("expert", 1.0),))
    return None if first is None or last is None else (first, last)


def _rise(values: Floats, t: Floats) -> Floats:
    chord = values[:, :1] * (1 - t) + values[:, -1:] * t
    return np.asarray((values - chord)[:, 1:-1].max(axis=1), dtype=np.float64)
