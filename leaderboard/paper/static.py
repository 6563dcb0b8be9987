"""The paper's figures as files: SVG, PDF or PNG of the same panels that the site draws, in sizes that a paper prints.

`figure-3.svg` has all panels and the width of a text block; `figure-3a.svg` one panel and the width of a column.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.schema import UserError
from leaderboard.charts.layout import compose
from leaderboard.charts.panel import Panel
from leaderboard.measure.rank import find_series
from leaderboard.paper import paper_figures
from leaderboard.paper.figure import Figure
from leaderboard.read.board import ALL, Board

FORMATS = ("svg", "pdf", "png")
PIXELS = 96  # an inch, in a browser
TEXT_WIDTH, COLUMN_WIDTH = round(6.8 * PIXELS), round(3.3 * PIXELS)
PLOT_HEIGHT = round(1.6 * PIXELS)
FONT = 8 / 72 * PIXELS  # 8 points
PNG_SCALE = 3  # dots a pixel: 288 an inch


def write_figures(boards: Mapping[Path, Board], format_: str, prompts: str = ALL) -> list[Path]:
    """Write the figures of each board into its folder; returns the files.

    Raises UserError for an unknown format or prompt set, without kaleido or a browser, and where nothing can be drawn.
    """
    if format_ not in FORMATS:
        raise UserError(f"--format: expected one of {', '.join(FORMATS)}, got {format_!r}")
    jobs = []
    for folder, board in boards.items():
        if prompts and prompts not in board.sets:
            raise UserError(f"--prompts: expected one of {', '.join(board.sets)}, got {prompts!r}")
        for figure in paper_figures(board, find_series(board)):
            jobs += [(folder / f"{name}.{format_}", drawn) for name, drawn in printed(figure, prompts)]
    if not jobs:
        raise UserError("these databases hold nothing that the paper's figures show")
    for folder in boards:
        folder.mkdir(parents=True, exist_ok=True)
    draw(jobs, format_)
    return [path for path, _ in jobs]


def printed(figure: Figure, prompts: str = ALL) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file name without its ending, Plotly figure): all panels, then each where there are several."""
    panels, name = figure.drawn(prompts), f"figure-{figure.claim.key}"
    if panels:
        yield name, on_paper(panels, TEXT_WIDTH if len(panels) > 1 else COLUMN_WIDTH)
    for k, panel in enumerate(panels if len(panels) > 1 else ()):
        yield f"{name}{'abcdefghi'[k]}", on_paper([panel], COLUMN_WIDTH)


def on_paper(panels: Sequence[Panel], width: int) -> dict[str, Any]:
    """The panels in the light theme's colours on white."""
    colors = palette() | {"--bg": "#ffffff", "--ink": "#000000", "--soft": "#333333"}
    painted: dict[str, Any] = paint(compose(panels, width, PLOT_HEIGHT, FONT), colors)
    return painted


def palette() -> dict[str, str]:
    """The style sheet's first block of colours: the light theme."""
    sheet = (files("leaderboard") / "templates" / "style.css").read_text(encoding="utf-8")
    return dict(re.findall(r"(--\w+): (#[0-9a-f]{6});", sheet.split("}", 1)[0]))


def paint(value: Any, colors: Mapping[str, str]) -> Any:
    """Replace `--s0` and `--s0:0.2` by colours, everywhere in a figure."""
    if isinstance(value, dict):
        return {key: paint(item, colors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [paint(item, colors) for item in value]
    if isinstance(value, str) and value.startswith("--"):
        name, _, opacity = value.partition(":")
        return colors[name] + (f"{round(float(opacity) * 255):02x}" if opacity else "")
    return value


def draw(jobs: Sequence[tuple[Path, Mapping[str, Any]]], format_: str) -> None:
    """Let one browser draw every figure.  No outside requests: Plotly's script comes from the installed package."""
    try:
        import kaleido
        from choreographer.errors import BrowserFailedError, ChromeNotFoundError
    except ImportError as error:
        raise UserError("writing figures needs kaleido: pip install 'lerpbench[figures]'") from error
    scale = PNG_SCALE if format_ == "png" else 1
    todo = [{"fig": figure, "path": path, "opts": {"format": format_, "scale": scale}} for path, figure in jobs]
    try:
        failed = kaleido.write_fig_from_object_sync(todo, kopts={"mathjax": False})
    except (ChromeNotFoundError, BrowserFailedError) as error:
        raise UserError(
            "writing figures needs Chromium or Chrome: install your system's package, or run `kaleido_get_chrome`"
        ) from error
    if failed:
        raise failed[0]
