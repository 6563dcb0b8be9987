"""Who plays which of the paper's parts on a board.  Methods are recognised by their recipes, never by their names."""

from collections.abc import Sequence
from dataclasses import dataclass

from leaderboard.measure.rank import Series
from leaderboard.read.board import Board, Place


@dataclass(frozen=True)
class Cast:
    line: Series | None  # g1: the line through both experts
    push: Series | None  # g2: the base moved along their difference
    ensemble: Series | None  # DExperts: the same in logits
    plane: Series | None  # g3
    bridge: Series | None  # from the base to a model of another pre-training


def cast(board: Board, series: Sequence[Series]) -> Cast:
    """The first series that fits each part."""

    def first(kind: str, space: str, total: float | None = None) -> Series | None:
        return next((s for s in series if s.kind == kind and _plays(board, s, space, total)), None)

    return Cast(
        line=first("curve", "weights", 1.0),
        push=first("curve", "weights", 0.0),
        ensemble=first("curve", "logits", 0.0),
        plane=first("plane", "weights"),
        bridge=first("bridge", "weights"),
    )


def _plays(board: Board, series: Series, space: str, total: float | None) -> bool:
    places = [board.places[i] for i in series.places]
    fits = all(p.recipe.space == space and p.recipe.filter_p is None and p.recipe.rule is None for p in places)
    return fits and (total is None or all(experts_total(p) == total for p in places))


def experts_total(place: Place) -> float:
    """The experts' coefficients together: 1 on g1's line, 0 on g2's; NaN where another model takes part."""
    c = place.recipe.coefficients
    if set(c) - {"base", "expert", "antiexpert"}:
        return float("nan")
    return round(c.get("expert", 0.0) + c.get("antiexpert", 0.0), 9)


def same_place(board: Board, a: Series, b: Series) -> list[tuple[int, int]]:
    """Pairs of settings that moved equally far along the experts' difference, lowest first."""
    at = {round(board.places[j].displacement, 9): j for j in b.places}
    pairs = [(i, at[d]) for i in a.places if (d := round(board.places[i].displacement, 9)) in at]
    return sorted(pairs, key=lambda pair: board.places[pair[0]].displacement)
