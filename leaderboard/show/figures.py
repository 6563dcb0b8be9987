"""What the pages' script draws: every estimate of a board as one compact value, and which figures to make of it.

The script holds no numbers and no names of methods; it draws `curves` and `frontier` from this.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.schema import Number
from leaderboard.charts.layout import on_page
from leaderboard.charts.panel import BAND, Panel, axis, color, logarithmic, stretched, style
from leaderboard.measure.rank import CONTROL, COST, Series, price_limit
from leaderboard.names import family, title
from leaderboard.numbers import RULE, short
from leaderboard.read.board import ALL, Board, MetricInfo

CURVES = (
    ("sentiment", "Sentiment", ("sentiment", "fraction_positive")),
    ("perplexity", "Perplexity", ("perplexity", "perplexity_dexperts", "perplexity_median")),
    ("acceptability", "Acceptability", ("acceptability",)),
    ("distinct", "Distinct-n", ("distinct_2", "distinct_1", "distinct_3", "distinct_2_dexperts", "distinct_1_dexperts",
                                "distinct_3_dexperts")),
)  # fmt: skip


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
        "prices": {p: logarithmic(_values(board, series, COST, p)) for p in sets},
        "base": board.base,
        "control": CONTROL,
        "cost": COST,
        "limit": {prompts: short(price_limit(board, prompts)) for prompts in sets},
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
    for name, heading, wanted in CURVES:
        metrics = [metric for metric in wanted if metric in board.metrics]
        if metrics:
            found.append({"id": f"curves-{name}", "group": "curves", "kind": "curves", "metrics": metrics,
                          "title": f"{heading} against alpha"})  # fmt: skip
    return found


def _frontier(board: Board) -> list[dict[str, Any]]:
    if CONTROL not in board.metrics or COST not in board.metrics:
        return []
    return [{"id": "frontier", "group": "frontier", "kind": "frontier", "metrics": [CONTROL, COST],
             "title": "Sentiment against perplexity"}]  # fmt: skip
