"""Figures 9 and 10: how far apart the weights are, and what lies between two models of different pre-training."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from leaderboard.figures import family, number, title
from leaderboard.paper.cast import Cast
from leaderboard.paper.figure import Claim, Figure, Finding, absent, beyond, shown
from leaderboard.paper.panel import (
    Panel,
    axis,
    color,
    color_bar,
    curve,
    metric_title,
    position,
    precise,
    stretched,
    table,
    values,
)
from leaderboard.paper.plane import height, log_ticks
from leaderboard.query import ALL, Board
from leaderboard.rank import COST, Series, chord_rise

OTHER = "other"  # the checkpoint of another pre-training
DISTINCT = ("distinct_1", "distinct_2", "distinct_3")
NAME = re.compile(r"weight_distance\[([^\]]+)\](?:\[(.+)\])?")
OUTSIDE = "outside"  # the row of the tensors that belong to no layer

FAR = Claim(
    "9",
    "How far apart the weights are",
    "Fine-tuning moves the weights little, while a model of another pre-training is far away: the root mean square "
    "difference of each tensor, all pairs on one scale.",
)
BROKEN = Claim(
    "10",
    "Two differently pre-trained models",
    "Between two models of different pre-training every interpolated model is broken: perplexity rises far above both "
    "ends, or, where it does not, distinct n-grams drop; acceptability peaks at the two ends.",
)

Distances = Mapping[str, Mapping[str, float]]  # pair -> tensor, "" for all of them together -> distance


def weight_distance(board: Board) -> Figure:
    """Figure 9."""
    stored = distances(board)
    if not stored:
        return Figure(FAR, absent("weight distances were not measured"))
    return Figure(FAR, _distance_findings(stored), {ALL: _distance_panels(stored)})


def distances(board: Board) -> Distances:
    """The stored weight distances; they stand at one place of the board, whichever it is."""
    known = {name: result.value for (_, name, _), result in board.results.items() if family(name) == "weight_distance"}
    found: dict[str, dict[str, float]] = {}
    for name in board.metrics:
        parts, value = NAME.fullmatch(name), known.get(name)
        if parts is not None and value is not None:
            found.setdefault(parts[1], {})[parts[2] or ""] = value
    return found


def layer_and_parameter(tensor: str) -> tuple[int | None, str]:
    """`transformer.h.3.attn.c_attn.weight` -> (3, `attn.c_attn.weight`); (None, last two words) outside the layers."""
    found = re.search(r"\.(\d+)\.(.+)$", tensor)
    return (int(found[1]), found[2]) if found else (None, ".".join(tensor.split(".")[-2:]))


def _distance_panels(stored: Distances) -> list[Panel]:
    """Layers down, parameters to the right; the logarithm is coloured, between the same ends in every panel."""
    logs = [float(np.log10(v)) for tensors in stored.values() for name, v in tensors.items() if name and v > 0]
    if not logs:
        return []
    ends = {"zmin": min(logs), "zmax": max(logs)}
    return [_distance_panel(pair, tensors, ends) for pair, tensors in stored.items()]


def _distance_panel(pair: str, tensors: Mapping[str, float], ends: Mapping[str, float]) -> Panel:
    at = {layer_and_parameter(name): value for name, value in tensors.items() if name}
    layers = sorted({layer for layer, _ in at if layer is not None})
    names = sorted({p for layer, p in at if layer is not None}) + sorted({p for layer, p in at if layer is None})
    rows = [*layers, None]
    cells = [[at.get((layer, name)) for name in names] for layer in rows]
    labels = [OUTSIDE if layer is None else str(layer) for layer in rows]
    heat = {
        "type": "heatmap", "x": names, "y": labels, "z": [[height(v, log=True) for v in row] for row in cells],
        "text": [["" if v is None else precise(v) for v in row] for row in cells], "hoverongaps": False,
        "hovertemplate": "layer %{y}, %{x}<br>%{text}<extra></extra>", "colorscale": "Cividis",
        "colorbar": color_bar("Root mean square", **log_ticks(**ends)), **ends,
    }  # fmt: skip
    table_ = [[label, name, precise(v)] for label, row in zip(labels, cells, strict=True)
              for name, v in zip(names, row, strict=True) if v is not None]  # fmt: skip
    return Panel(
        both(pair), [heat], {"tickangle": -90, "tickfont": {"size": 8}, "showgrid": False},
        axis("layer", autorange="reversed", type="category", showgrid=False), table_,
        head=("Layer", "Parameter", "Root mean square difference"), square=True, foot=90,
    )  # fmt: skip


def _distance_findings(stored: Distances) -> list[Finding]:
    far = {pair: v for pair, v in stored.items() if OTHER in pair.split(":")}
    tuned = {pair: v for pair, v in stored.items() if pair not in far}
    each = ", ".join(f"{both(pair)} {precise(v[''])}" for pair, v in stored.items())
    found = [Finding(f"Root mean square difference over all elements: {each}.")]
    for pair, v in far.items():
        for near_pair, w in tuned.items():
            shared = [name for name in v if name and name in w]
            closer = sum(w[name] < v[name] for name in shared)
            text = f"{both(pair)} are {number(v[''] / w[''])} times as far apart as {both(near_pair)}"
            text += f", which are closer in {closer} of {len(shared)} tensors."
            found.append(Finding(text, closer == len(shared)))
    return found


def both(pair: str) -> str:
    return " and ".join(pair.split(":"))


# ------------------------------------------------------------------------------------------------ figure 10


def between_basins(board: Board, parts: Cast) -> Figure:
    """Figure 10."""
    bridge = parts.bridge
    if bridge is None:
        return Figure(BROKEN, absent("no line to a model of another pre-training"))
    return Figure(BROKEN, _bridge_findings(board, bridge), {ALL: _bridge_panels(board, bridge)})


def _bridge_panels(board: Board, bridge: Series) -> list[Panel]:
    panels = []
    x = axis("From base (0) to other (1)")
    for metrics in ((COST,), DISTINCT, ("acceptability",)):
        known = [m for m in metrics if m in board.metrics]
        traces = [
            trace
            for k, m in enumerate(known)
            for trace in curve(board, bridge, m, name=title(m) if len(metrics) > 1 else "",
                               paint=color(bridge.slot + k), mark=k)
        ]  # fmt: skip
        if traces:
            name = "Distinct-n" if len(metrics) > 1 else title(metrics[0])
            unit = "Share of n-grams" if len(metrics) > 1 else metric_title(board, metrics[0])
            if len(metrics) == 1:
                for trace in traces:
                    trace["showlegend"] = False
            panels.append(Panel(name, traces, x, axis(unit, **stretched(values(traces))),
                                table(board, bridge.places, known, ALL)))  # fmt: skip
    return panels


def _bridge_findings(board: Board, bridge: Series) -> list[Finding]:
    ends = [i for i in bridge.places if list(board.places[i].coefficients.values()) == [1.0]]
    inside = [i for i in bridge.places if 0 < position(board, bridge, i) < 1]
    if len(ends) != 2 or not inside:
        return absent("the line lacks an end or what is between")
    rise = chord_rise(board, bridge, (ends[0], ends[1]), COST)
    text = f"Barrier, the largest rise of {COST} above the line between the two models: {shown(rise)}."
    broken = [i for i in inside if _broken(board, i, ends)]
    count = f"{len(broken)} of {len(inside)} settings between them have a higher {COST} or fewer distinct bigrams"
    found = [Finding(text, beyond(rise, 0, 1)), Finding(f"{count} than both.", len(broken) == len(inside))]
    for metric in ("distinct_2", "acceptability"):
        edge = [v for i in ends if (v := board.value(i, metric)) is not None]
        mid = [v for i in inside if (v := board.value(i, metric)) is not None]
        if edge and mid:
            text = (f"{title(metric)} between them: {number(min(mid))} to {number(max(mid))}; at the ends "
                    f"{' and '.join(number(v) for v in edge)}.")  # fmt: skip
            found.append(Finding(text, max(mid) < min(edge) if metric == "acceptability" else None))
    return found


def _broken(board: Board, place: int, ends: Sequence[int]) -> bool:
    def sides(metric: str, good: int) -> bool:
        value, edge = board.value(place, metric), [board.value(i, metric) for i in ends]
        return value is not None and all(e is not None and (value - e) * good < 0 for e in edge)

    return sides(COST, -1) or sides("distinct_2", 1)
