"""Figure 4: the probability of a word right after the prompt, along each line."""

import numpy as np

from leaderboard.charts.panel import ALPHA, DASHES, Panel, Trace, axis, curve, logarithmic, position, table, values
from leaderboard.measure.rank import Series, spearman
from leaderboard.names import family, item
from leaderboard.numbers import number
from leaderboard.paper.cast import Cast
from leaderboard.paper.figure import Claim, Figure, Finding, absent
from leaderboard.read.board import ALL, Board

POLARITY = {
    **dict.fromkeys(
        ("great", "good", "amazing", "wonderful", "excellent", "brilliant", "beautiful", "fun"), "positive"
    ),
    **dict.fromkeys(("bad", "terrible", "awful", "boring", "horrible", "dull", "poor", "worst", "ugly"), "negative"),
}
GOOD = ("positive", "rising")


CLAIM = Claim(
    "4",
    "The next word",
    "Along g1, after the prompt, positive words become monotonically more probable with alpha and negative words less.",
)


def next_word(board: Board, parts: Cast) -> Figure:
    """Figure 4."""
    words = [name for name in board.metrics if family(name) == "next_token"]
    lines = [s for s in (parts.line, parts.push, parts.ensemble) if s is not None]
    panels = [panel for s in lines if (panel := _panel(board, s, words)) is not None]
    findings = [] if parts.line is None else _findings(board, parts.line, words)
    missing = absent("no next-token probabilities along the line through both experts")
    return Figure(CLAIM, findings or missing, {ALL: panels} if panels else {})


def _panel(board: Board, series: Series, words: list[str]) -> Panel | None:
    """Positive words solid and green, negative ones dashed and red; named at the line's end."""
    traces: list[Trace] = []
    for k, metric in enumerate(words):
        good = polarity(board, series, metric) in GOOD
        paint = "--good" if good else "--bad"
        made = curve(board, series, metric, name=item(metric), paint=paint, mark=k)[-1:]
        for trace in made:
            trace["line"]["dash"] = DASHES[0 if good else 1]
            trace["showlegend"] = False
        traces += made
    if not traces:
        return None
    log = logarithmic(values(traces))
    notes, top = _names(traces, bool(log))
    xs = traces[0]["x"]
    span = [min(xs) - 0.04 * (max(xs) - min(xs)), max(xs) + 0.45 * (max(xs) - min(xs))]
    return Panel(
        series.name, traces, axis(f"{ALPHA} of {series.name}", range=span), axis("Probability", **log, range=top),
        table(board, series.places, words, ALL), notes=notes,
    )  # fmt: skip


def _names(traces: list[Trace], log: bool) -> tuple[list[dict[str, object]], list[float]]:
    """Names at the lines' ends, pushed apart by a line of text, and the vertical range that holds them."""
    scale = np.log10 if log else np.asarray
    known = scale(np.array(values(traces)))
    low, line = float(known.min()), 0.075 * max(float(np.ptp(known)), 1e-9)
    last, notes = -np.inf, []
    for trace in sorted(traces, key=lambda t: t["y"][-1]):
        last = max(float(scale(trace["y"][-1])), last + line)
        notes.append({"x": trace["x"][-1], "y": last, "xshift": 6, "text": trace["name"], "showarrow": False,
                      "xanchor": "left", "font": {"color": trace["line"]["color"]}})  # fmt: skip
    return notes, [low - line, max(float(known.max()), last) + line]


def _findings(board: Board, line: Series, words: list[str]) -> list[Finding]:
    found = []
    for name in words:
        rank, n = _rank_with_alpha(board, line, name)
        if n > 2:
            sense = polarity(board, line, name)
            judged = {"positive": rank > 0.99, "negative": rank < -0.99}.get(sense)
            found.append(Finding(f"{item(name)} ({sense}): rank correlation with alpha {number(rank)}.", judged))
    return found


def polarity(board: Board, series: Series, metric: str) -> str:
    """Positive or negative: by the word itself or the metric's description, else by whether it rises with alpha."""
    if item(metric).lower() in POLARITY:
        return POLARITY[item(metric).lower()]
    about = board.metrics[metric].description.lower()
    if ("positive" in about) != ("negative" in about):
        return "positive" if "positive" in about else "negative"
    rank, n = _rank_with_alpha(board, series, metric)
    return "rising" if rank >= 0 or n < 2 else "falling"


def _rank_with_alpha(board: Board, series: Series, metric: str) -> tuple[float, int]:
    """Spearman's rank correlation of a metric with alpha, and over how many settings; NaN for fewer than two."""
    known = [(position(board, series, i), v) for i in series.places if (v := board.value(i, metric)) is not None]
    x, y = np.array(known, dtype=np.float64).reshape(-1, 2).T
    return (float(spearman(y[None, :], x)[0]) if len(known) > 1 else float("nan")), len(known)
