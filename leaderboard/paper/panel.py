"""One picture as Plotly's plain dictionaries, drawn alike by the site's script and into files.

Colours are names of the style sheet (`--s0`, `--ink`, with opacity `--s0:0.2`), replaced where a panel is drawn: the
site follows the reader's theme, a file the printed page.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leaderboard.figures import MINUS, number, short, title
from leaderboard.query import ALL, Board, Result
from leaderboard.rank import Series

Trace = dict[str, Any]
ALPHA, BETA = "\N{GREEK SMALL LETTER ALPHA}", "\N{GREEK SMALL LETTER BETA}"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down", "pentagon", "hexagon")
DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot")
HEAD = ("Setting", "Metric", "Value", "95 % interval", "n")


@dataclass(frozen=True)
class Panel:
    """`x`, `y`, `top` are Plotly axes; traces with `"top": True` belong to the horizontal axis above.

    `rows`: the numbers behind it under `head`, as text.  `square`: a map, which wants room for its colour bar.  `foot`:
    pixels for what stands below.
    """

    title: str
    traces: Sequence[Trace]
    x: Mapping[str, Any]
    y: Mapping[str, Any]
    rows: Sequence[Sequence[str]]
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


def scored(result: Result) -> str:
    return str(result.n_scored) if result.n_scored == result.n_total else f"{result.n_scored}/{result.n_total}"


def spoken(board: Board, place: int, metric: str, result: Result) -> str:
    """What a reader sees over a mark."""
    interval = "" if result.low is None else f" [{number(result.low)}, {number(result.high)}]"
    what = f"{safe(title(metric))} {number(result.value)}{interval} (n {scored(result)})"
    return f"<b>{safe(board.places[place].label)}</b><br>{what}"


def table(board: Board, places: Iterable[int], metrics: Sequence[str], prompts: str) -> list[list[str]]:
    """The numbers of these places, one line each."""
    found = []
    for i in places:
        for metric in metrics:
            r = board.get(i, metric, prompts)
            if r is not None:
                interval = number(None) if r.low is None else f"{number(r.low)} to {number(r.high)}"
                found.append([board.places[i].label, title(metric), number(r.value), interval, scored(r)])
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
        "line": {"color": paint, "width": 1.8, "dash": DASHES[mark % len(DASHES)]},
        "marker": {"color": paint, "size": 6, "symbol": SYMBOLS[mark % len(SYMBOLS)]},
        "text": [spoken(board, i, metric, r) for i, r in known],
        "hovertemplate": "%{text}<extra></extra>",
    }
    framed = [(position(board, series, i), r) for i, r in known if r.low is not None]
    if len(framed) < 2:
        return [line]
    xs = [x for x, _ in framed]
    edge = [short(r.low) for _, r in framed], [short(r.high) for _, r in framed]
    band = common | {
        "x": xs + xs[::-1], "y": edge[0] + edge[1][::-1], "mode": "lines", "line": {"width": 0}, "fill": "toself",
        "fillcolor": f"{paint}:0.16", "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
    return [band, line]


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


# ------------------------------------------------------------------------------------------------- one layout


GAP_PX, BAR_PX, TITLE_PX, TOP_PX, SIDES_PX = 62, 74, 24, 38, (52, 14)


def columns_of(n: int) -> int:
    """How many panels stand side by side."""
    return 2 if n in (2, 4) else min(n, 3)


def compose(panels: Sequence[Panel], width: int, plot_height: int, font: float) -> dict[str, Any]:
    """Panels side by side as one Plotly figure, lettered where several.

    All in pixels: `width` of the whole, `plot_height` of each panel between its axes, `font` of the text.
    """
    columns, rows = columns_of(len(panels)), -(-len(panels) // columns_of(len(panels)))
    legend, foot = legend_px(panels), max(p.foot for p in panels)
    bar = BAR_PX if any(p.square for p in panels) else 0
    head = TITLE_PX * (len(panels) > 1) + TOP_PX * any(p.top is not None for p in panels) or 8
    step = plot_height + head + foot  # from row to row
    inner_w, inner_h = width - sum(SIDES_PX) - bar, rows * step - head - foot
    cell_w = (inner_w - (columns - 1) * (GAP_PX + bar)) / columns
    figure: dict[str, Any] = {
        "data": [],
        "layout": _page(width, legend + rows * step, font)
        | {
            "margin": {"l": SIDES_PX[0], "r": SIDES_PX[1] + bar, "t": legend + head, "b": foot},
            "showlegend": legend > 0,
        },
    }
    for k, panel in enumerate(panels):
        row, column = divmod(k, columns)
        left, down = column * (cell_w + GAP_PX + bar), row * step
        x_domain = [left / inner_w, min(1.0, (left + cell_w) / inner_w)]
        y_domain = [max(0.0, 1 - (down + plot_height) / inner_h), 1 - down / inner_h]
        _place(figure, panel, k, x_domain, y_domain, letter="abcdefghi"[k] if len(panels) > 1 else "")
    return figure


def legend_px(panels: Sequence[Panel]) -> int:
    names = {t["legendgroup"] for p in panels for t in p.traces if t.get("legendgroup") and t.get("showlegend", True)}
    return 24 if len(names) > 1 else 0


def _page(width: int, height: int, font: float) -> dict[str, Any]:
    return {
        "width": width, "height": height, "paper_bgcolor": "--bg", "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "Helvetica, Arial, sans-serif", "size": font, "color": "--ink"},
        "hovermode": "closest", "dragmode": False, "shapes": [], "annotations": [],
        "legend": {"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top",
                   "bgcolor": "rgba(0,0,0,0)"},
    }  # fmt: skip


def _place(figure: dict[str, Any], panel: Panel, k: int, x_domain: list[float], y_domain: list[float],
           letter: str) -> None:  # fmt: skip
    """Put a panel into the figure: axes k, k + 50 for the one above, its legend entries once."""
    layout, n = figure["layout"], "" if k == 0 else str(k + 1)
    look = {"gridcolor": "--line", "zeroline": False, "linecolor": "--line", "automargin": True, "ticks": ""}
    layout[f"xaxis{n}"] = look | dict(panel.x) | {"domain": x_domain, "anchor": f"y{n}"}
    layout[f"yaxis{n}"] = look | dict(panel.y) | {"domain": y_domain, "anchor": f"x{n}"}
    if panel.top is not None:
        layout[f"xaxis{k + 50}"] = look | dict(panel.top) | {"anchor": f"y{n}", "overlaying": f"x{n}", "side": "top",
                                                            "showgrid": False}  # fmt: skip
    for name in (f"xaxis{n}", f"yaxis{n}", f"xaxis{k + 50}"):
        if "title" in layout.get(name, {}):
            layout[name]["title"] = layout[name]["title"] | {"font": {"size": layout["font"]["size"]}}
    listed = {t["legendgroup"] for t in figure["data"] if t.get("showlegend")}
    for trace in panel.traces:
        placed = {key: value for key, value in trace.items() if key != "top"}
        placed |= {"xaxis": f"x{k + 50}" if trace.get("top") else f"x{n}", "yaxis": f"y{n}"}
        if "legendgroup" in trace:
            placed["showlegend"] = trace.get("showlegend", True) and trace["legendgroup"] not in listed
        if "colorbar" in trace:
            bar, font = trace["colorbar"], {"size": layout["font"]["size"]}
            placed["colorbar"] = bar | {
                "x": x_domain[1], "xpad": 6, "y": sum(y_domain) / 2, "len": y_domain[1] - y_domain[0],
                "title": bar["title"] | {"font": font},
            }  # fmt: skip
        figure["data"].append(placed)
    refs = {"xref": f"x{n}", "yref": f"y{n}"}
    layout["shapes"] += [refs | dict(s) | _domain(s, n) for s in panel.shapes]
    layout["annotations"] += [refs | dict(note) | _domain(note, n) for note in panel.notes]
    if letter:
        layout["annotations"].append({
            "x": x_domain[0], "y": y_domain[1], "xref": "paper", "yref": "paper", "xanchor": "left",
            "yanchor": "bottom", "yshift": 36 if panel.top else 4, "showarrow": False,
            "text": f"<b>({letter})</b> {safe(panel.title)}",
        })  # fmt: skip


def _domain(item: Mapping[str, Any], n: str) -> dict[str, str]:
    """`y domain` of a panel's own axis."""
    return {"yref": f"y{n} domain"} if item.get("yref") == "y domain" else {}
