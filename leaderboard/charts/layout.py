"""Panels side by side as one Plotly figure, laid out in pixels, so that labels have room at any size of the whole."""

from collections.abc import Mapping, Sequence
from typing import Any

from leaderboard.charts.panel import Panel, safe

GAP_PX, BAR_PX, TITLE_PX, TOP_PX, SIDES_PX = 62, 74, 24, 38, (52, 14)


WIDTH, HEIGHT, FONT = 460, 250, 12  # pixels; the page stretches a panel to its place and keeps the margins


def on_page(panel: Panel) -> dict[str, Any]:
    """One panel with the numbers behind it, as the pages' script takes it."""
    return compose([panel], WIDTH, HEIGHT, FONT) | {"head": panel.head, "rows": panel.rows}


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
