"""What the paper claims, figure by figure, and what this board shows: numbers with intervals, never a picture alone.

Methods are recognised by their recipes: the line through both experts (g1), the base moved along their difference (g2),
the same in logits (DExperts), the plane (g3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leaderboard.comparison import compare_places
from leaderboard.figures import family, item, number, polarity
from leaderboard.query import ALL, Board, Place
from leaderboard.rank import CONTROL, COST, Derived, Series, barrier, draws, finite_interval, monotonicity, spearman

ABSENT = "Not shown by this database"
RADIUS = 1.0  # within which the plane is tested for linearity


@dataclass(frozen=True)
class Finding:
    """One sentence with its number; `holds` None: the data cannot say."""

    text: str
    holds: bool | None = None


@dataclass(frozen=True)
class Claim:
    figure: str
    title: str
    paper: str
    link: str
    findings: tuple[Finding, ...]

    @property
    def absent(self) -> bool:
        return all(finding.text.startswith(ABSENT) for finding in self.findings)


@dataclass(frozen=True)
class Cast:
    """Who plays which of the paper's parts on this board."""

    line: Series | None  # g1
    push: Series | None  # g2
    ensemble: Series | None  # DExperts
    plane: Series | None  # g3


def cast(board: Board, series: Sequence[Series]) -> Cast:
    """The first series that fits each part."""

    def first(kind: str, space: str, total: float | None = None) -> Series | None:
        return next((s for s in series if s.kind == kind and _plays(board, s, space, total)), None)

    return Cast(
        line=first("curve", "weights", 1.0),
        push=first("curve", "weights", 0.0),
        ensemble=first("curve", "logits", 0.0),
        plane=first("plane", "weights"),
    )


def _plays(board: Board, series: Series, space: str, total: float | None) -> bool:
    places = [board.places[i] for i in series.places]
    fits = all(p.space == space and p.filter_p is None for p in places)
    return fits and (total is None or all(_total(p) == total for p in places))


def _total(place: Place) -> float:
    """The experts' coefficients together: 1 on g1's line, 0 on g2's."""
    c = place.coefficients
    if set(c) - {"base", "expert", "antiexpert"}:
        return float("nan")
    return round(c.get("expert", 0.0) + c.get("antiexpert", 0.0), 9)


def claims(board: Board, series: Sequence[Series]) -> list[Claim]:
    """Figures 3 to 10; a figure whose method or metric is not stored says so."""
    parts = cast(board, series)
    return [
        Claim("3", "The line through both experts", "Sentiment rises with alpha, also beyond 0 and 1; perplexity stays "
              "flat for alpha in [0, 1], without a barrier.", "index.html#curves-perplexity", _figure3(board, parts)),
        Claim("4", "The next word", "After 'The movie was', positive words become monotonically more probable with "
              "alpha, negative words less.", "index.html#words", _figure4(board, parts)),
        Claim("5", "g1 against g2", "At comparable sentiment g2 has better perplexity and acceptability than g1 "
              "(neutral prompts).", "index.html?scale=d#curves-perplexity", _figure5(board, parts)),
        Claim("6", "DExperts against g2", "The curves are almost identical for alpha in [0, 1].",
              "index.html#curves-sentiment", _figure6(board, parts)),
        Claim("7", "The plane: sentiment and perplexity", "Sentiment grows along the experts' difference; perplexity "
              "has a plateau near alpha + beta = 0.", "index.html#maps", _figure7(board, parts)),
        Claim("8", "The plane: test loss", "The loss on both test sets is lower near alpha + beta = 1.",
              "index.html#maps", _figure8(board, parts)),
        Claim("9", "Weight distance", "Fine-tuning moves the weights far less than another pre-training does.",
              "index.html#all", _figure9(board)),
        Claim("10", "Two differently pre-trained models", "Between two models of different origin, interpolated models "
              "are broken: higher perplexity or fewer distinct n-grams.", "index.html#all", _figure10(board, series)),
    ]  # fmt: skip


def absent(what: str) -> tuple[Finding, ...]:
    return (Finding(f"{ABSENT}: {what}."),)


def shown(x: Derived) -> str:
    if x.value is None:
        return f"{number(None)} ({x.reason})" if x.reason else number(None)
    interval = "" if x.low is None or x.high is None else f" [{number(x.low)}, {number(x.high)}]"
    return number(x.value) + interval


# ------------------------------------------------------------------------------------------------ the figures


def _figure3(board: Board, parts: Cast) -> tuple[Finding, ...]:
    if parts.line is None:
        return absent("no line through both experts")
    rank, rise = monotonicity(board, parts.line), barrier(board, parts.line)
    found = [Finding(f"Rank correlation of {CONTROL} with alpha: {shown(rank)} over {rank.n} points.",
                     None if rank.value is None else rank.value >= 0.9)]  # fmt: skip
    holds = None if rise.value is None else bool(rise.value <= 0 or (rise.low is not None and rise.low <= 0))
    found.append(Finding(f"Largest rise of perplexity above the chord between the experts: {shown(rise)}.", holds))
    return (*found, *_beyond(board, parts.line))


def _beyond(board: Board, line: Series) -> list[Finding]:
    """How sentiment goes on outside [0, 1]."""
    alphas = {float(board.places[i].params[line.axis]): board.value(i, CONTROL) for i in line.places}
    known = {a: v for a, v in alphas.items() if v is not None}
    if not known or 1.0 not in known or max(known) <= 1:
        return []
    top = max(known)
    return [Finding(f"{CONTROL.capitalize()} at alpha {top:g}: {number(known[top])}; at alpha 1: {number(known[1.0])}.",
                    known[top] > known[1.0])]  # fmt: skip


def _figure4(board: Board, parts: Cast) -> tuple[Finding, ...]:
    words = [name for name in board.metrics if family(name) == "next_token"]
    if parts.line is None or not words:
        return absent("no next-token probabilities along the line through both experts")
    found = []
    for name in words:
        pairs = [(float(board.places[i].params["alpha"]), board.value(i, name)) for i in parts.line.places]
        known = np.array([(x, y) for x, y in pairs if y is not None], dtype=np.float64)
        if len(known) > 2:
            sense = polarity(board, parts.line, name)
            rank = float(spearman(known[None, :, 1], known[:, 0])[0])
            judged = None if sense in ("rising", "falling") else rank > 0.99 if sense == "positive" else rank < -0.99
            found.append(Finding(f"{item(name)} ({sense}): rank correlation with alpha {number(rank)}.", judged))
    return tuple(found) or absent("fewer than three points")


def _figure5(board: Board, parts: Cast) -> tuple[Finding, ...]:
    if parts.line is None or parts.push is None:
        return absent("g1 or g2 is missing")
    prompts = "neutral" if "neutral" in board.sets else ALL
    pairs = same_place(board, parts.line, parts.push)
    at_expert = [(i, j) for i, j in pairs if board.places[i].displacement == 0.5]
    found = []
    for one, other in at_expert or pairs[-1:]:
        comparison = compare_places(board, other, one, prompts)
        for d in comparison.differences:
            if d.metric in (CONTROL, COST, "acceptability"):
                what = f"{d.metric.capitalize()}, {comparison.a} minus {comparison.b}, {prompts or 'all'} prompts"
                better = {COST: side(d.difference, -1), "acceptability": side(d.difference, 1)}.get(d.metric)
                found.append(Finding(f"{what}: {shown(d.difference)}.", better))
    return tuple(found) or absent("no pair of settings at the same distance along the experts' difference")


def side(x: Derived, good: int) -> bool | None:
    """Whether a difference lies on the good side of zero with its whole interval; None if zero is in the interval."""
    if x.low is None or x.high is None or x.low <= 0 <= x.high:
        return None
    return (x.low > 0) == (good > 0)


def same_place(board: Board, a: Series, b: Series) -> list[tuple[int, int]]:
    """Pairs of settings that moved equally far along the experts' difference, lowest first."""
    at = {round(board.places[j].displacement, 9): j for j in b.places}
    pairs = [(i, at[d]) for i in a.places if (d := round(board.places[i].displacement, 9)) in at]
    return sorted(pairs, key=lambda pair: board.places[pair[0]].displacement)


def _figure6(board: Board, parts: Cast) -> tuple[Finding, ...]:
    if parts.push is None or parts.ensemble is None:
        return absent("g2 or DExperts is missing")
    pairs = [(i, j) for i, j in same_place(board, parts.push, parts.ensemble) if 0 <= board.places[i].displacement <= 1]
    if not pairs:
        return absent("no shared alpha in [0, 1]")
    found = []
    for metric in (CONTROL, COST):
        if metric in board.per_prompt:
            found.append(Finding(f"Largest distance of the {metric} curves over {len(pairs)} shared alphas in [0, 1]: "
                                 f"{shown(_distance(board, metric, pairs))}."))  # fmt: skip
    return tuple(found) or absent("no per-prompt statistics")


def _distance(board: Board, metric: str, pairs: Sequence[tuple[int, int]]) -> Derived:
    a, a_drawn = draws(board.per_prompt[metric], ALL, [i for i, _ in pairs])
    b, b_drawn = draws(board.per_prompt[metric], ALL, [j for _, j in pairs])
    low, high = finite_interval(np.abs(a_drawn - b_drawn).max(axis=1))
    return Derived(float(np.abs(a - b).max()), low, high, len(pairs))


def _figure7(board: Board, parts: Cast) -> tuple[Finding, ...]:
    if parts.plane is None:
        return absent("no plane of two parameters")
    found = []
    fit = _linearity(board, parts.plane)
    if fit is not None:
        where = f"within |alpha|, |beta| \N{LESS-THAN OR EQUAL TO} {RADIUS:g}"
        found.append(Finding(f"A linear function of alpha and beta {where} explains {number(fit)} of the variance of "
                             f"{CONTROL} (R\N{SUPERSCRIPT TWO})."))  # fmt: skip
    matched = _matched(board, parts.plane, COST, 0.0, None)
    if matched is not None:
        on, off = matched
        text = f"Geometric mean perplexity on alpha + beta = 0: {number(on)}; beside it at equal steps: {number(off)}."
        found.append(Finding(text, on < off))
    return tuple(found) or absent("no results on the plane")


def _linearity(board: Board, plane: Series) -> float | None:
    rows = [
        (float(board.places[i].params["alpha"]), float(board.places[i].params["beta"]), board.value(i, CONTROL))
        for i in plane.places
    ]
    near = [(a, b, v) for a, b, v in rows if v is not None and max(abs(a), abs(b)) <= RADIUS]
    table = np.array(near, dtype=np.float64)
    if len(table) < 5:
        return None
    design = np.column_stack([table[:, :2], np.ones(len(table))])
    solution, *_ = np.linalg.lstsq(design, table[:, 2], rcond=None)
    residual = table[:, 2] - design @ solution
    spread = float(((table[:, 2] - table[:, 2].mean()) ** 2).sum())
    return None if spread == 0 else 1 - float((residual**2).sum()) / spread


def _matched(board: Board, plane: Series, metric: str, one: float, other: float | None) -> tuple[float, float] | None:
    """Geometric means of a metric over places with alpha + beta = one, and = other (None: any but 0 and 1).

    Only steps along the experts' difference that both have are counted, each once, since the metric depends on them.
    """
    ones: dict[float, list[float]] = {}
    others: dict[float, list[float]] = {}
    for i in plane.places:
        value, total = board.value(i, metric), _total(board.places[i])
        if value is None or value <= 0:
            continue
        step = round(board.places[i].displacement, 9)
        if total == one:
            ones.setdefault(step, []).append(value)
        elif total == other or (other is None and total not in (0.0, 1.0)):
            others.setdefault(step, []).append(value)
    shared = sorted(ones.keys() & others.keys())
    if not shared:
        return None
    means = [np.exp(np.mean([np.mean(np.log(values[step])) for step in shared])) for values in (ones, others)]
    return float(means[0]), float(means[1])


def _figure8(board: Board, parts: Cast) -> tuple[Finding, ...]:
    if parts.plane is None:
        return absent("no plane of two parameters")
    found = []
    for metric in ("nll_positive", "nll_negative"):
        matched = _matched(board, parts.plane, metric, 1.0, 0.0)
        if matched is not None:
            one, zero = matched
            text = f"Mean {metric} on alpha + beta = 1: {number(one)}; on alpha + beta = 0: {number(zero)}."
            found.append(Finding(text, one < zero))
    return tuple(found) or absent("no test loss on the plane")


def _figure9(board: Board) -> tuple[Finding, ...]:
    names = [name for name in board.metrics if family(name) == "weight_distance"]
    if not names:
        return absent("weight distances were not measured")
    return (Finding(f"{len(names)} weight distances are stored; see every metric."),)


def _figure10(board: Board, series: Sequence[Series]) -> tuple[Finding, ...]:
    for s in series:
        ends = [i for i in s.places if list(board.places[i].coefficients.values()) == [1.0]]
        names = {name for i in s.places for name in board.places[i].coefficients}
        if s.kind == "curve" and "other" in names and len(ends) > 1:
            inside = [v for i in s.places if i not in ends and (v := board.value(i, COST)) is not None]
            edge = [v for i in ends if (v := board.value(i, COST)) is not None]
            if inside and edge:
                what = f"Perplexity between {' and '.join(sorted(names))}: up to {number(max(inside))}"
                ended = " and ".join(number(v) for v in edge)
                return (Finding(f"{what}; at the ends {ended}.", max(inside) > max(edge)),)
    return absent("no line to a model of another origin")
