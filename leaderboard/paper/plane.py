"""Figures 7 and 8: maps of g3 over alpha and beta, with the lines that g1 and g2 take through them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.schema import Number
from bench.stats import Floats, with_interval
from leaderboard.charts.panel import ALPHA, BETA, Panel, Trace, axis, color_bar, metric_title, table
from leaderboard.measure.rank import Series, draws
from leaderboard.names import title
from leaderboard.numbers import short, shown
from leaderboard.paper.cast import Cast, experts_total
from leaderboard.paper.figure import Claim, Figure, Finding, absent, beyond
from leaderboard.read.board import ALL, Board

LOSSES = ("nll_positive", "nll_negative")
DIVERGING = [[0, "#a8501f"], [0.25, "#e0a070"], [0.5, "#f4f1ea"], [0.75, "#6fa8cf"], [1, "#0b5390"]]
INK, PAPER = "#14181d", "#ffffff"  # on the maps' own colours, in light and dark alike


REACH = Claim(
    "7",
    "The plane of g3: {control} and {price}",
    "{Control} grows along the experts' difference, from upper left to lower right. {Price} has a plateau near "
    "alpha + beta = 0, where g2 lies.",
)
LOSS = Claim(
    "8",
    "The plane of g3: test loss",
    "The loss on the positive and on the negative test sentences is lower near alpha + beta = 1, where g1 lies (the "
    "paper calls this line g2; by its equations it is g1).",
)


def control_and_price(board: Board, parts: Cast) -> Figure:
    """Figure 7."""
    if parts.plane is None:
        return Figure(REACH, absent("no plane of two parameters"))
    panels = {p: maps(board, parts.plane, (board.goal.control, board.goal.price), p) for p in (ALL, *board.sets)}
    return Figure(REACH, _plateau(board, parts.plane) or absent("no results on the plane"), panels)


def held_out_loss(board: Board, parts: Cast) -> Figure:
    """Figure 8."""
    if parts.plane is None:
        return Figure(LOSS, absent("no plane of two parameters"))
    findings = _losses(board, parts.plane) or absent("no test loss on the plane")
    return Figure(LOSS, findings, {ALL: maps(board, parts.plane, LOSSES)})


# ------------------------------------------------------------------------------------------------ numbers


def _plateau(board: Board, plane: Series) -> list[Finding]:
    found = []
    for parameter, good in (("alpha", 1), ("beta", -1)):
        slope = _slope(board, plane, parameter)
        if slope is not None:
            text = f"{title(board.goal.control)} changes by {shown(slope)} per unit of {parameter} (least squares)."
            found.append(Finding(text, beyond(slope, 0, good)))
    return [*found, *_lower_on(board, plane, board.goal.price, 0)]


def _slope(board: Board, plane: Series, parameter: str) -> Number | None:
    places = [i for i in plane.places if board.value(i, board.goal.control) is not None]
    if board.goal.control not in board.per_prompt or len(places) < 4:
        return None
    measured, drawn = draws(board.per_prompt[board.goal.control], ALL, places)
    solve = np.linalg.pinv(design(board, places))[("alpha", "beta").index(parameter)]  # (places,)
    return with_interval(solve @ measured, drawn @ solve, len(places))


def design(board: Board, places: Sequence[int]) -> Floats:
    """(places, 3): alpha, beta, 1."""
    rows = [[float(board.places[i].params["alpha"]), float(board.places[i].params["beta"]), 1.0] for i in places]
    return np.array(rows, dtype=np.float64)


def _losses(board: Board, plane: Series) -> list[Finding]:
    return [finding for metric in LOSSES for finding in _lower_on(board, plane, metric, 1)]


def _lower_on(board: Board, plane: Series, metric: str, total: int) -> list[Finding]:
    ratio = on_the_line(board, plane, metric, total)
    if ratio is None:
        return []
    where = f"on alpha + beta = {total} over that off both lines, at equal steps along the experts' difference"
    return [Finding(f"{title(metric)} {where}, geometric means: {shown(ratio)}.", beyond(ratio, 1, -1))]


def on_the_line(board: Board, plane: Series, metric: str, total: float) -> Number | None:
    """Geometric mean of a metric where alpha + beta = total, over that where it is neither 0 nor 1; resampled together.

    Only steps along the experts' difference that both have are counted, each once, since the metric depends on them.
    """
    steps: dict[float, tuple[list[int], list[int]]] = {}
    for i in plane.places:
        sum_, value = experts_total(board.places[i]), board.value(i, metric)
        if value is not None and value > 0 and (sum_ == total or sum_ not in (0.0, 1.0)):
            on, off = steps.setdefault(round(board.places[i].displacement, 9), ([], []))
            (on if sum_ == total else off).append(i)
    shared = [(on, off) for on, off in steps.values() if on and off]
    if not shared or metric not in board.per_prompt:
        return None
    places = [i for on, off in shared for i in (*on, *off)]
    share = np.array([s for on, off in shared for s in ([1 / len(on)] * len(on) + [-1 / len(off)] * len(off))])
    measured, drawn = draws(board.per_prompt[metric], ALL, places)
    ratio = np.exp(np.log(np.vstack([measured, drawn])) @ share / len(shared))
    return with_interval(ratio[0], ratio[1:], len(shared))


# ------------------------------------------------------------------------------------------------ maps


def maps(board: Board, plane: Series, metrics: Sequence[str], prompts: str = ALL) -> list[Panel]:
    """A map for each metric that this plane has."""
    return [
        heat_map(board, plane, metric, prompts)
        for metric in metrics
        if metric in board.metrics and sum(board.value(i, metric, prompts) is not None for i in plane.places) > 3
    ]


def heat_map(board: Board, plane: Series, metric: str, prompts: str = ALL) -> Panel:
    """Alpha to the right, beta up; perplexity coloured by its logarithm; thin contours of equal value."""
    log = metric == board.goal.price
    at = {(float(board.places[i].params["alpha"]), float(board.places[i].params["beta"])): i for i in plane.places}
    xs, ys = sorted({x for x, _ in at}), sorted({y for _, y in at})
    cells = [[at.get((x, y)) for x in xs] for y in ys]
    results = [[None if i is None else board.get(i, metric, prompts) for i in row] for row in cells]
    z = [[height(None if r is None else r.value, log) for r in row] for row in results]
    known = [v for row in z for v in row if v is not None]
    ticks = log_ticks(min(known), max(known)) if log and known else {}
    scale: dict[str, Any] = {"colorscale": "Cividis", "reversescale": board.metrics[metric].direction == "lower"}
    if metric == board.goal.control:
        scale = {"colorscale": DIVERGING, "zmid": 0.5}
    heat = {"type": "heatmap", "x": xs, "y": ys, "z": z, "customdata": cells, "meta": title(metric),
            "colorbar": color_bar(metric_title(board, metric), **ticks), "hoverongaps": False, **scale}  # fmt: skip
    equal = {"type": "contour", "x": xs, "y": ys, "z": z, "showscale": False, "hoverinfo": "skip", "ncontours": 8,
             "contours": {"coloring": "none"}, "line": {"color": f"{INK}", "width": 0.7}, "opacity": 0.55,
             "showlegend": False}  # fmt: skip
    edges = _edges(xs), _edges(ys)
    lines = [_sum_line(*edges, 1, "solid"), _sum_line(*edges, 0, "dash")]
    return Panel(
        title(metric), [heat, equal, *(trace for traces, _ in lines for trace in traces)],
        axis(ALPHA, range=edges[0], constrain="domain"), axis(BETA, range=edges[1], constrain="domain"),
        table(board, plane.places, [metric], prompts), notes=[note for _, notes in lines for note in notes],
        square=True,
    )  # fmt: skip


def height(value: float | None, log: bool) -> float | None:
    """What a colour stands for."""
    if value is None or (log and value <= 0):
        return None
    return short(float(np.log10(value)) if log else value)


def log_ticks(zmin: float, zmax: float) -> dict[str, Any]:
    """Five ticks of a colour bar over logarithms."""
    at = np.linspace(zmin, zmax, 5)
    return {"tickvals": at.tolist(), "ticktext": [f"{float(f'{10**v:.2g}'):g}" for v in at]}


def _edges(at: Sequence[float]) -> list[float]:
    """The outer edges of the cells."""
    if len(at) < 2:
        return [at[0] - 0.5, at[0] + 0.5]
    return [at[0] - (at[1] - at[0]) / 2, at[-1] + (at[-1] - at[-2]) / 2]


def _sum_line(
    x: Sequence[float], y: Sequence[float], total: int, dash: str
) -> tuple[list[Trace], list[dict[str, Any]]]:
    """The line alpha + beta = total through the map, white-edged, with its name; nothing where it misses the map."""
    start, end = max(x[0], total - y[1]), min(x[1], total - y[0])
    if start >= end:
        return [], []
    line = {"type": "scatter", "x": [start, end], "y": [total - start, total - end], "mode": "lines",
            "hoverinfo": "skip", "showlegend": False}  # fmt: skip
    step = (end - start) * 0.14
    name = f"{ALPHA} + {BETA} = {total}"
    note = {"x": start + step, "y": total - start - step, "text": name, "showarrow": False, "xanchor": "left",
            "yanchor": "bottom", "font": {"color": INK}, "bgcolor": f"{PAPER}d1", "borderpad": 1}  # fmt: skip
    wide, thin = {"color": PAPER, "width": 4}, {"color": INK, "width": 1.6, "dash": dash}
    return [line | {"line": wide}, line | {"line": thin}], [note]
