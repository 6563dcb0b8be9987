"""Figure 10: what lies on the line between two models of different pre-training."""

from collections.abc import Sequence

from leaderboard.charts.panel import Panel, axis, color, curve, metric_title, position, stretched, table, values
from leaderboard.measure.rank import Series, chord_rise
from leaderboard.names import title
from leaderboard.numbers import number, shown
from leaderboard.paper.cast import Cast
from leaderboard.paper.figure import Claim, Figure, Finding, absent, beyond
from leaderboard.read.board import ALL, Board

DISTINCT = ("distinct_1", "distinct_2", "distinct_3")

BROKEN = Claim(
    "10",
    "Two differently pre-trained models",
    "Between two models of different pre-training every interpolated model is broken: perplexity rises far above both "
    "ends, or, where it does not, distinct n-grams drop; acceptability peaks at the two ends.",
)


def between_basins(board: Board, parts: Cast) -> Figure:
    """Figure 10."""
    bridge = parts.bridge
    if bridge is None:
        return Figure(BROKEN, absent("no line to a model of another pre-training"))
    return Figure(BROKEN, _bridge_findings(board, bridge), {ALL: _bridge_panels(board, bridge)})


def _bridge_panels(board: Board, bridge: Series) -> list[Panel]:
    panels = []
    x = axis("From base (0) to other (1)")
    for metrics in ((board.goal.price,), DISTINCT, ("acceptability",)):
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
    ends = [i for i in bridge.places if list(board.places[i].recipe.coefficients.values()) == [1.0]]
    inside = [i for i in bridge.places if 0 < position(board, bridge, i) < 1]
    if len(ends) != 2 or not inside:
        return absent("the line lacks an end or what is between")
    rise = chord_rise(board, bridge, (ends[0], ends[1]), board.goal.price)
    text = f"Barrier, the largest rise of {board.goal.price} above the line between the two models: {shown(rise)}."
    broken = [i for i in inside if _broken(board, i, ends)]
    price = board.goal.price
    count = f"{len(broken)} of {len(inside)} settings between them have a higher {price} or fewer distinct bigrams"
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

    return sides(board.goal.price, -1) or sides("distinct_2", 1)
