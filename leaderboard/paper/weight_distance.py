"""Figure 9: how far apart the weights of two checkpoints are, tensor by tensor."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from bench.schema import TensorDistance
from leaderboard.charts.panel import Panel, axis, color_bar
from leaderboard.numbers import number
from leaderboard.paper.figure import Claim, Figure, Finding, absent
from leaderboard.paper.plane import height, log_ticks
from leaderboard.read.board import ALL, Board

OTHER = "other"  # the checkpoint of another pre-training
OUTSIDE = "outside"  # the row of the tensors that belong to no layer

FAR = Claim(
    "9",
    "How far apart the weights are",
    "Fine-tuning moves the weights little, while a model of another pre-training is far away: the root mean square "
    "difference of each tensor, all pairs on one scale.",
)
Distances = Mapping[str, Mapping[str, float]]  # pair -> tensor, "" for all of them together -> distance


def weight_distance(board: Board) -> Figure:
    """Figure 9."""
    stored = distances(board)
    if not stored:
        return Figure(FAR, absent("weight distances were not measured"))
    return Figure(FAR, _distance_findings(stored), {ALL: _distance_panels(stored)})


def distances(board: Board) -> Distances:
    """The stored weight distances, pair by pair as the suite names them."""
    found: dict[str, list[TensorDistance]] = {}
    for one in board.distances:
        found.setdefault(one.pair, []).append(one)
    return {pair: {"": overall(each), **{one.tensor: one.distance for one in each}} for pair, each in found.items()}


def overall(tensors: Sequence[TensorDistance]) -> float:
    """sqrt(sum n d^2 / sum n): the root mean square over the elements of all tensors."""
    squares = sum(one.elements * one.distance**2 for one in tensors)
    return math.sqrt(squares / sum(one.elements for one in tensors))


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
        "text": [["" if v is None else number(v) for v in row] for row in cells], "hoverongaps": False,
        "hovertemplate": "layer %{y}, %{x}<br>%{text}<extra></extra>", "colorscale": "Cividis",
        "colorbar": color_bar("Root mean square", **log_ticks(**ends)), **ends,
    }  # fmt: skip
    table_ = [[label, name, number(v)] for label, row in zip(labels, cells, strict=True)
              for name, v in zip(names, row, strict=True) if v is not None]  # fmt: skip
    return Panel(
        both(pair), [heat], {"tickangle": -90, "tickfont": {"size": 8}, "showgrid": False},
        axis("layer", autorange="reversed", type="category", showgrid=False), table_,
        head=("Layer", "Parameter", "Root mean square difference"), square=True, foot=90,
    )  # fmt: skip


def _distance_findings(stored: Distances) -> list[Finding]:
    far = {pair: v for pair, v in stored.items() if OTHER in pair.split(":")}
    tuned = {pair: v for pair, v in stored.items() if pair not in far}
    each = ", ".join(f"{both(pair)} {number(v[''])}" for pair, v in stored.items())
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
