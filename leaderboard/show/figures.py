"""What the pages' script draws: every estimate of a board as one compact value, and which figures to make of it.

The script holds no numbers and no names of methods; it draws `curves` and `frontier` from this.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.schema import Number
from evaluators.protocols import twins
from leaderboard.charts.layout import on_page
from leaderboard.charts.panel import BAND, Panel, axis, color, logarithmic, stretched, style
from leaderboard.measure.rank import Series, price_limit
from leaderboard.names import DIVERGENCE, family, title
from leaderboard.numbers import RULE, short
from leaderboard.read.board import ALL, Board, MetricInfo

TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)  # nats


def of_points(board: Board) -> dict[str, MetricInfo]:
    """The metrics that points differ in; the distances between checkpoints are on the paper's page."""
    return {name: info for name, info in board.metrics.items() if family(name) != "weight_distance"}


def page_data(board: Board, series: Sequence[Series]) -> dict[str, Any]:
    """Everything the script needs, ready for JSON."""
    owner = {i: s.slot for s in series for i in s.places}
    metrics, sets = of_points(board), [ALL, *board.sets]
    steered = [s for s in series if s.kind != "plane"]
    return {
        "sets": sets,
        "series": [
            {
                "name": s.name,
                "slug": s.slug,
                "kind": s.kind,
                "axis": s.axis,
                "spaces": s.spaces(board),
                "places": list(s.places),
                "style": style(color(s.slot), s.slot),
            }
            for s in series
        ],
        "places": [
            {
                "label": p.label,
                "x": _x(p.params, series[owner[i]].axis if i in owner else ""),
                "d": short(p.displacement),
            }
            for i, p in enumerate(board.places)
        ],
        "metrics": {
            name: {"title": title(name), "unit": m.unit, "about": m.description, "direction": m.direction}
            for name, m in metrics.items()
        },
        "values": {name: _columns(board, name) for name in metrics},
        "rule": RULE,
        "band": BAND,
        "layout": on_page(Panel("", [], axis(""), axis(""), []))["layout"],
        "axes": {name: {p: stretched(_values(board, steered, name, p)) for p in sets} for name in metrics},
        "prices": {p: logarithmic(_values(board, series, board.goal.price, p)) for p in sets},
        "control": board.goal.control,
        "cost": board.goal.price,
        "limit": {prompts: short(price_limit(board, prompts, board.goal.price)) for prompts in sets},
        "divergence": divergence_axis(board),
        "figures": figures(board, series),
    }


def _values(board: Board, series: Sequence[Series], metric: str, prompts: str) -> list[float]:
    return [v for s in series for i in s.places if (v := board.value(i, metric, prompts)) is not None]


def _x(params: Mapping[str, Any], axis: str) -> list[float]:
    return [float(params[key]) for key in axis.split(",") if key]


def _columns(board: Board, metric: str) -> dict[str, Any]:
    """prompt set -> columns over places; a place without an estimate is null in every column."""
    found = {}
    for prompts in (ALL, *(board.sets if board.metrics[metric].of_text else ())):
        results = [board.get(i, metric, prompts) for i in range(len(board.places))]
        if any(results):
            found[prompts] = _column(results)
    return found


def _column(results: Sequence[Number | None]) -> dict[str, Any]:
    column: dict[str, Any] = {
        "v": [short(r.value) if r else None for r in results],
        "lo": [short(r.low) if r else None for r in results],
        "hi": [short(r.high) if r else None for r in results],
        "n": [r.n_scored if r else None for r in results],
        "N": [r.n_total if r else None for r in results],
    }
    for key in ("n", "N"):
        known = {n for n in column[key] if n is not None}
        if len(known) == 1 and None not in column[key]:
            column[key] = known.pop()
    reasons = {str(i): r.reason for i, r in enumerate(results) if r and r.reason}
    return column | ({"why": reasons} if reasons else {})


# ------------------------------------------------------------------------------------------------- which figures


def figures(board: Board, series: Sequence[Series]) -> list[dict[str, Any]]:
    """The figures this board can show, in the page's order; maps and words are on the paper's page."""
    return [*_curve_figures(board, series), *_frontier(board)]


def _curve_figures(board: Board, series: Sequence[Series]) -> list[dict[str, Any]]:
    if not any(s.kind == "curve" for s in series):
        return []
    found = []
    for metric in board.columns:
        stem = re.sub(r"_\d+$", "", metric)
        heading = title(metric) if stem == metric else f"{title(stem)}-n"
        found.append({"id": f"curves-{stem}", "group": "curves", "kind": "curves",
                      "metrics": _kin(board, metric, stem), "title": f"{heading} against strength"})  # fmt: skip
    return found


def _kin(board: Board, metric: str, stem: str) -> list[str]:
    """A metric, what another protocol has in its place, and those of its name."""
    same = twins(metric)
    return [metric, *(m for m in board.metrics if m != metric and (m in same or m.startswith(f"{stem}_")))]


def _frontier(board: Board) -> list[dict[str, Any]]:
    """The control against the price, and against the divergence from the base."""
    control, price = board.goal.control, board.goal.price
    found = []
    if control in board.metrics and price in board.metrics:
        found.append({"id": "frontier", "group": "frontier", "kind": "frontier", "metrics": [control, price],
                      "title": f"{title(control)} against {price}"})  # fmt: skip
    if control in board.metrics and DIVERGENCE in board.metrics:
        found.append({"id": "frontier-kl", "group": "frontier", "kind": "frontier", "metrics": [control, DIVERGENCE],
                      "title": f"{title(control)} against {title(DIVERGENCE)}"})  # fmt: skip
    return found


def divergence_axis(board: Board) -> dict[str, Any] | None:
    """Which metric the axis of the divergence shows, by its root, and its ticks; None where it was not measured."""
    known = [v for i in range(len(board.places)) if (v := board.value(i, DIVERGENCE)) is not None]
    if not known:
        return None
    most = max(known)
    ticks = [0.0, *(t for t in TICKS if 0.004 * most < t < 1.3 * most)]  # closer to 0 they would overlap
    return {"metric": DIVERGENCE,
            "axis": {"tickmode": "array", "tickvals": [math.sqrt(t) for t in ticks],
                     "ticktext": [f"{t:g}" for t in ticks]}}  # fmt: skip
