"""Figures 3, 5 and 6: what changes along one line, g1 against g2, g2 against DExperts."""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.schema import Number
from bench.stats import with_interval
from leaderboard.charts.panel import ALPHA, Panel, along, axis, position, upright
from leaderboard.measure.rank import Series, barrier, draws, losses, monotonicity
from leaderboard.names import title
from leaderboard.numbers import number, plain, shown
from leaderboard.paper.cast import Cast, same_place
from leaderboard.paper.figure import Claim, Figure, Finding, absent, beyond
from leaderboard.read.board import ALL, Board

DRAWN = 3  # of the goal's metrics: the control, the price and one more
WAYS = {"lower": -1, "higher": 1}
LINE = Claim(
    "3",
    "The line through both experts",
    "Along g1 {control} rises with alpha, also below 0 and above 1. {Price} stays flat for alpha in [0, 1], without "
    "a barrier between the experts, and acceptability with it.",
)
PAIR = Claim(
    "5",
    "g1 against g2",
    "On neutral prompts, at comparable {control}, g2 has a lower {price} and a higher acceptability than g1. The "
    "scales are shifted by one half: settings above each other have moved equally far along the experts' difference.",
)
TWINS = Claim(
    "6",
    "DExperts against g2",
    "Mixing logits and mixing weights give almost identical curves for alpha in [0, 1].",
)


def along_the_line(board: Board, parts: Cast) -> Figure:
    """Figure 3."""
    line = parts.line
    if line is None:
        return Figure(LINE, absent("no line through both experts"))
    panels = {p: _line_panels(board, line, p) for p in (ALL, *board.sets)}
    return Figure(LINE, _line_findings(board, line), panels)


def _line_panels(board: Board, line: Series, prompts: str) -> list[Panel]:
    marks = [upright(0, "θ⁻"), upright(1, "θ⁺")]
    shapes, notes = [shape for shape, _ in marks], [note for _, notes in marks for note in notes]
    x = axis(f"{ALPHA} of {line.name}")
    return [panel for metric in board.goal.metrics[:DRAWN]
            for panel in along(board, [line], metric, prompts, x, shapes=shapes, notes=notes)]  # fmt: skip


def _line_findings(board: Board, line: Series) -> list[Finding]:
    rank, control = monotonicity(board, line), board.goal.control
    return [
        Finding(f"Rank correlation (Spearman) of {control} with alpha: {shown(rank)} over {rank.n_total} settings.",
                None if rank.value is None else rank.value >= 0.9),
        *[_no_barrier(board, line, metric) for metric in (board.goal.price, *losses(board))],
        *_outside(board, line),
    ]  # fmt: skip


def _no_barrier(board: Board, line: Series, metric: str) -> Finding:
    rise = barrier(board, line, metric=metric)
    text = f"{title(metric)}: barrier, the largest rise above the line between the experts, {shown(rise)}."
    return Finding(text, beyond(rise, 0, -1))


def _outside(board: Board, line: Series) -> list[Finding]:
    """How the control goes on beyond the experts, each end against its expert."""
    at = {position(board, line, i): i for i in line.places if board.value(i, board.goal.control) is not None}
    found = []
    for expert, end, good in ((1.0, max(at, default=1.0), 1), (0.0, min(at, default=0.0), -1)):
        if expert in at and (end - expert) * good > 0:
            change = contrast(board, board.goal.control, {at[end]: 1, at[expert]: -1})
            text = f"{title(board.goal.control)} at alpha {plain(end)} minus at {plain(expert)}: {shown(change)}."
            found.append(Finding(text, beyond(change, 0, good)))
    return found


def contrast(board: Board, metric: str, share: Mapping[int, float], prompts: str = ALL) -> Number:
    """The sum of a metric over places, each times its share, resampled together."""
    if metric not in board.per_prompt:
        return Number(None, reason="no per-prompt statistics")
    measured, drawn = draws(board.per_prompt[metric], prompts, list(share))
    weights = np.array(list(share.values()), dtype=np.float64)
    return with_interval(float(measured @ weights), drawn @ weights, len(share))


# ------------------------------------------------------------------------------------------- g1 against g2


def line_against_push(board: Board, parts: Cast) -> Figure:
    """Figure 5."""
    line, push = parts.line, parts.push
    prompts = "neutral" if "neutral" in board.sets else ALL
    if line is None or push is None:
        return Figure(PAIR, absent("g1 or g2 is missing"))
    panels = {ALL: _pair_panels(board, line, push, prompts)}
    return Figure(PAIR, _pair_findings(board, line, push, prompts), panels)


def _pair_panels(board: Board, line: Series, push: Series, prompts: str) -> list[Panel]:
    xs = [position(board, line, i) for i in line.places] + [position(board, push, i) + 0.5 for i in push.places]
    pad = 0.04 * (max(xs) - min(xs)) or 0.5
    low, high = min(xs) - pad, max(xs) + pad
    x = axis(f"{ALPHA} of {line.name}", range=[low, high])
    top = axis(f"{ALPHA} of {push.name}", range=[low - 0.5, high - 0.5])
    return [panel for metric in board.goal.metrics[:DRAWN]
            for panel in along(board, [line, push], metric, prompts, x, top=top)]  # fmt: skip


def _pair_findings(board: Board, line: Series, push: Series, prompts: str) -> list[Finding]:
    """Over all settings from the antiexpert to the expert, and at the expert."""
    shared = [(i, j) for i, j in same_place(board, line, push) if abs(board.places[i].displacement) <= 0.5]
    if not shared:
        return absent("no pair of settings at the same distance along the experts' difference")
    found = []
    for metric in board.goal.metrics[:DRAWN]:
        if metric in board.per_prompt and (pairs := _judged(board, shared, metric, prompts)):
            good = None if metric == board.goal.control else WAYS.get(board.metrics[metric].direction)
            mean = contrast(board, metric, _minus(pairs), prompts)
            end = contrast(board, metric, _minus(pairs[-1:]), prompts)
            i, j = pairs[-1]
            who = f"{title(metric)}, {push.name} minus {line.name} on {prompts or 'all'} prompts"
            last = f"{board.places[j].label} minus {board.places[i].label}: {shown(end)}"
            text = f"{who}: {shown(mean)} on average over {len(pairs)} settings; {last}."
            found.append(Finding(text, None if good is None else beyond(mean, 0, good)))
    return found


def _judged(board: Board, pairs: Sequence[tuple[int, int]], metric: str, prompts: str = ALL) -> list[tuple[int, int]]:
    """The pairs of which both have a value."""
    return [pair for pair in pairs if all(board.value(i, metric, prompts) is not None for i in pair)]


def _minus(pairs: Sequence[tuple[int, int]]) -> dict[int, float]:
    """Shares of the mean difference, second minus first."""
    return {i: -1 / len(pairs) for i, _ in pairs} | {j: 1 / len(pairs) for _, j in pairs}


# -------------------------------------------------------------------------------------- g2 against DExperts


def push_against_ensemble(board: Board, parts: Cast) -> Figure:
    """Figure 6."""
    push, ensemble = parts.push, parts.ensemble
    if push is None or ensemble is None:
        return Figure(TWINS, absent("g2 or DExperts is missing"))
    panels = {p: _twin_panels(board, push, ensemble, p) for p in (ALL, *board.sets)}
    return Figure(TWINS, _twin_findings(board, push, ensemble), panels)


def _twin_panels(board: Board, push: Series, ensemble: Series, prompts: str) -> list[Panel]:
    shade = {"type": "rect", "x0": 0, "x1": 1, "y0": 0, "y1": 1, "yref": "y domain", "fillcolor": "--soft:0.08",
             "line": {"width": 0}, "layer": "below"}  # fmt: skip
    return [panel for metric in (board.goal.price, board.goal.control)
            for panel in along(board, [push, ensemble], metric, prompts, axis(ALPHA), shapes=[shade])]  # fmt: skip


def _twin_findings(board: Board, push: Series, ensemble: Series) -> list[Finding]:
    shared = [(i, j) for i, j in same_place(board, push, ensemble) if 0 <= board.places[i].displacement <= 1]
    if not shared:
        return absent("no shared alpha in [0, 1]")
    found = []
    for metric in (board.goal.control, board.goal.price):
        if metric in board.per_prompt and (pairs := _judged(board, shared, metric)):
            far, at = distance(board, metric, pairs)
            text = f"Largest distance of the {metric} curves over {len(pairs)} shared alphas in [0, 1]: {shown(far)}"
            ends = [v for i, _ in (pairs[0], pairs[-1]) if (v := board.value(i, metric)) is not None]
            share = f"; {push.name} itself changes by {number(abs(ends[-1] - ends[0]))} there" if len(pairs) > 1 else ""
            found.append(Finding(f"{text}, at alpha {plain(board.places[at].displacement)}{share}."))
    return found or absent("no per-prompt statistics")


def distance(board: Board, metric: str, pairs: Sequence[tuple[int, int]]) -> tuple[Number, int]:
    """The largest |a - b| over pairs of places, with its interval, and the first place of the pair where it is."""
    a, a_drawn = draws(board.per_prompt[metric], ALL, [i for i, _ in pairs])
    b, b_drawn = draws(board.per_prompt[metric], ALL, [j for _, j in pairs])
    far, drawn = np.abs(a - b), np.abs(a_drawn - b_drawn).max(axis=1)
    return with_interval(far.max(), drawn, len(pairs)), pairs[int(far.argmax())][0]
