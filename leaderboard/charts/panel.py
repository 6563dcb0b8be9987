"""One picture as Plotly's plain dictionaries: traces, axes, and the numbers behind them.

Colours are names of the style sheet (`--s0`, `--ink`, with opacity `--s0:0.2`), replaced where a panel is drawn: the
site follows the reader's theme, a file the printed page.
"""

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.schema import Number
from leaderboard.measure.rank import Series
from leaderboard.names import title
from leaderboard.numbers import MINUS, between, number, short
from leaderboard.read.board import ALL, Board

Trace = dict[str, Any]
ALPHA, BETA = "\N{GREEK SMALL LETTER ALPHA}", "\N{GREEK SMALL LETTER BETA}"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down", "pentagon", "hexagon")
DASHES = ("solid", "7px,4px", "7px,3px,2px,3px", "2px,3px", "11px,4px", "11px,3px,2px,3px")  # for Plotly and for SVG
BAND = 0.16  # opacity of intervals
HEAD = ("Setting", "Metric", "Value", "95 % interval", "n")


@dataclass(frozen=True)
class Panel:
    """`x`, `y`, `top` are Plotly axes; traces with `"top": True` belong to the horizontal axis above.

    `rows`: the numbers behind it under `head`, as text; a place by its index.  `square`: a map, which wants room for
    its colour bar.  `foot`: pixels for what stands below.
    """

    title: str
    traces: Sequence[Trace]
    x: Mapping[str, Any]
    y: Mapping[str, Any]
    rows: Sequence[Sequence[str | int]]
    head: Sequence[str] = HEAD
    top: Mapping[str, Any] | None = None
    shapes: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[Mapping[str, Any]] = ()
    square: bool = False
    foot: int = 44


def color_bar(text: str, **ticks: Any) -> dict[str, Any]:
    return {"thickness": 10, "outlinewidth": 0, "title": {"text": safe(text), "side": "right"}, **ticks}


def color(slot: int) -> str:
    return f"--s{slot % 10}"


def safe(text: str) -> str:
    """Text for Plotly, which reads a few tags in labels."""
    return html.escape(text, quote=False)


def metric_title(board: Board, metric: str) -> str:
    unit = board.metrics[metric].unit
    return f"{title(metric)} ({unit})" if unit else title(metric)


def axis(text: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": safe(text), "standoff": 6}, **more}


def style(paint: str, mark: int) -> Trace:
    """The line and the marks of a series, everywhere."""
    return {
        "line": {"color": paint, "width": 1.8, "dash": DASHES[mark % len(DASHES)]},
        "marker": {"color": paint, "size": 6, "symbol": SYMBOLS[mark % len(SYMBOLS)]},
    }


def scored(result: Number) -> str:
    return str(result.n_scored) if result.n_scored == result.n_total else f"{result.n_scored}/{result.n_total}"


def table(board: Board, places: Iterable[int], metrics: Sequence[str], prompts: str) -> list[list[str | int]]:
    """The numbers of these places, one line each; a trace finds its own by `customdata`, the place, and `meta`."""
    found: list[list[str | int]] = []
    for i in places:
        for metric in metrics:
            r = board.get(i, metric, prompts)
            if r is not None:
                found.append([i, title(metric), number(r.value), between(r) or number(None), scored(r)])
    return found


# ------------------------------------------------------------------------------------------------- curves


def position(board: Board, series: Series, place: int) -> float:
    return float(board.places[place].params[series.axis])


def curve(board: Board, series: Series, metric: str, prompts: str = ALL, *, name: str = "", paint: str = "",
          mark: int | None = None, top: bool = False) -> list[Trace]:  # fmt: skip
    """A metric along a series, with the band of its intervals; empty where fewer than two values are stored."""
    known = [(i, r) for i in series.places if (r := board.get(i, metric, prompts)) is not None and r.value is not None]
    if len(known) < 2:
        return []
    name, paint = safe(name or series.name), paint or color(series.slot)
    mark = series.slot if mark is None else mark
    common: Trace = {"type": "scatter", "legendgroup": name, "name": name} | ({"top": True} if top else {})
    line = common | {
        "x": [position(board, series, i) for i, _ in known],
        "y": [short(r.value) for _, r in known],
        "mode": "lines+markers",
        "customdata": [i for i, _ in known],
        "meta": title(metric),
    }
    line |= style(paint, mark)
    framed = [(position(board, series, i), r) for i, r in known if r.low is not None]
    if len(framed) < 2:
        return [line]
    xs = [x for x, _ in framed]
    edge = [short(r.low) for _, r in framed], [short(r.high) for _, r in framed]
    band = common | {
        "x": xs + xs[::-1], "y": edge[0] + edge[1][::-1], "mode": "lines", "line": {"width": 0}, "fill": "toself",
        "fillcolor": f"{paint}:{BAND}", "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
    return [band, line]


def along(board: Board, series: Sequence[Series], metric: str, prompts: str, x: Mapping[str, Any], *,
          top: Mapping[str, Any] | None = None, shapes: Sequence[Mapping[str, Any]] = (),
          notes: Sequence[Mapping[str, Any]] = ()) -> Iterator[Panel]:  # fmt: skip
    """One metric's curves, the last series' over the axis `top` where there is one; nothing where none is stored."""
    traces = [trace for s in series if metric in board.metrics
              for trace in curve(board, s, metric, prompts, top=top is not None and s is series[-1])]  # fmt: skip
    if traces:
        y = axis(metric_title(board, metric), **stretched(values(traces)))
        places = [i for s in series for i in s.places]
        rows = table(board, places, [metric], prompts)
        yield Panel(title(metric), traces, x, y, rows, top=top, shapes=shapes, notes=notes)


def values(traces: Iterable[Trace]) -> list[float]:
    """The vertical positions of all marks."""
    return [y for trace in traces if "markers" in trace["mode"] for y in trace["y"]]


def logarithmic(known: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis with ticks at 1, 2, 5, closer within a decade; {} where it cannot show a value."""
    if not known or min(known) <= 0:
        return {}
    low, high = float(np.log10(min(known))), float(np.log10(max(known)))
    span = high - low
    steps = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8) if span < 0.8 else (1, 2, 5) if span < 2 else (1,)
    ticks = [float(f"{step * 10.0**k:.3g}") for k in range(int(low) - 2, int(high) + 2) for step in steps]
    return {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": [_tick(tick) for tick in ticks]}


def _tick(value: float) -> str:
    exponent = round(np.log10(value))
    return f"10<sup>{exponent}</sup>".replace("-", MINUS) if exponent < -3 else f"{value:g}"


def stretched(known: Sequence[float]) -> dict[str, Any]:
    """Logarithmic where the values span more than a factor of 20."""
    return logarithmic(known) if known and min(known) > 0 and max(known) / min(known) > 20 else {}


def upright(x: float, text: str = "") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A dotted vertical line at x, and its name at the upper edge."""
    shape = {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "y domain",
             "line": {"color": "--soft", "width": 1, "dash": "dot"}}  # fmt: skip
    note = {"x": x, "y": 1, "yref": "y domain", "text": text, "showarrow": False, "yanchor": "top", "xanchor": "left",
            "xshift": 2, "font": {"color": "--soft"}}  # fmt: skip
    return shape, [note] if text else []
