"""Pure: which unit is done next, and by whom.  The same decisions place a run's units and a simulation's.

Mixtures are served the dearest first, so that what is left at the end is short.  Completions are judged in the order of
generation: by all when nothing is left to serve, and before that by some, when too many generations wait for their
verdicts; a seat that judges goes on until none waits.  A seat gets its next unit while it does one, as long as many
wait: it then does not wait for the driver, and at the end nobody waits behind another.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal

from bench import engines
from bench.run.prepare import Work
from bench.run.units import Inspect, Judge, Piece, Serve, Unit

Role = Literal["serve", "judge"]
TRIES = 3
UNITS_PER_WORKER = 8  # of one size at least: the last of them then holds up a run by an eighth of a worker's share
LEAST_COMPLETIONS = 2_000  # of a piece: below it, changing mixtures costs more than a worker that waits
OPEN_PER_SEAT = 2  # generations whose completions wait in the object store for verdicts


def kind_of(unit: Any) -> Role:
    return "judge" if isinstance(unit, (Judge, Inspect)) else "serve"


@dataclass(frozen=True)
class Held:
    """How many units a seat has, two at most, and what it is at, or was at last."""

    n: int = 0
    kind: Role | None = None


def cost(work: Work, unit: Unit) -> float:
    """Of serving, in forward passes of completions; judging is taken as it comes."""
    if not isinstance(unit, Serve):
        return 0.0
    if unit.piece is None:
        return 1.0
    models = work.points[unit.position].recipe.models_per_token
    return models * work.completions_per_point / unit.piece.of


def cut(work: Work, units: Sequence[Serve], workers: int) -> list[Serve]:
    """Large points in pieces, so that the last one does not hold up the run; one worker's are left whole."""
    most = most_pieces(work.completions_per_point, len(work.prompts), engines.shard_prompts(work.engine))
    return in_pieces({unit: cost(work, unit) for unit in units}, workers, most)


def most_pieces(completions: int, prompts: int, shard: int | None) -> int:
    """Of a point: of LEAST_COMPLETIONS at least, and of whole shards, where the engine has them."""
    shards = completions if shard is None else ceil(prompts / shard)
    return max(1, min(completions // LEAST_COMPLETIONS, shards))


def in_pieces(costs: Mapping[Serve, float], workers: int, most: int) -> list[Serve]:
    """No unit dearer than an eighth of a worker's share, and no point in more than `most` pieces."""
    if workers == 1 or most == 1:
        return list(costs)
    fair = sum(costs.values()) / (workers * UNITS_PER_WORKER)
    return [piece for unit, dear in costs.items() for piece in pieces(unit, min(most, ceil(dear / fair)))]


def pieces(unit: Serve, n: int) -> list[Serve]:
    """A unit in n pieces of its prompts; evaluators probe beside the first."""
    if unit.piece is None:
        return [unit]
    return [replace(unit, piece=Piece(i, n), probes=unit.probes if i == 0 else ()) for i in range(n)]


class Agenda:
    """What waits, how often each unit was tried, and how many generations have verdicts to come."""

    def __init__(self, costs: Iterable[tuple[Any, float]], seats: int) -> None:
        self.most_open = OPEN_PER_SEAT * seats
        self._waiting: dict[Role, list[tuple[float, int, Any]]] = {"serve": [], "judge": []}
        self._tries: dict[Any, int] = {}
        self._open: Counter[int] = Counter()  # position -> its verdicts to come
        self._added = 0
        for unit, dear in costs:
            self.add(unit, dear)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def n_open(self) -> int:
        """Generations whose completions are kept at hand, since verdicts on them are to come."""
        return len(self._open)

    def add(self, unit: Any, dear: float = 0.0) -> None:
        self._push(unit, -dear, 1)
        if isinstance(unit, Judge):
            self._open[unit.position] += 1

    def done(self, unit: Any) -> None:
        """It is not coming back."""
        if isinstance(unit, Judge):
            self._open[unit.position] -= 1
            self._open += Counter()  # drops what is zero

    def hand_out(self, seats: Sequence[Held]) -> Iterator[tuple[int, Any]]:
        """(seat, unit): one for every seat that has none, then one to come, of the kind that the seat is at."""
        held = list(seats)
        for seat, one in enumerate(held):
            if one.n == 0 and len(self):
                kind = self._next(one.kind)
                held[seat] = Held(1, kind)
                yield seat, self._pop(kind)
        for seat, one in enumerate(held):
            many = one.kind is not None and len(self._waiting[one.kind]) > len(held)
            if one.n == 1 and one.kind is not None and many and self._next(one.kind) == one.kind:
                held[seat] = Held(2, one.kind)
                yield seat, self._pop(one.kind)

    def _next(self, kind: Role | None) -> Role:
        """What a seat does next that was at `kind`."""
        if not self._waiting["judge"]:
            return "serve"
        turns = kind == "judge" or self.n_open > self.most_open
        return "judge" if turns or not self._waiting["serve"] else "serve"

    def put_back(self, unit: Any) -> None:
        """It comes before all that waits."""
        self._push(unit, -float("inf"), -1)

    def failed(self, unit: Any) -> bool:
        """Put a unit back whose worker was lost; False where that was its last try."""
        self._tries[unit] = self._tries.get(unit, 0) + 1
        if self._tries[unit] < TRIES:
            self.put_back(unit)
        return self._tries[unit] < TRIES

    def _push(self, unit: Any, rank: float, order: int) -> None:
        self._added += 1
        heapq.heappush(self._waiting[kind_of(unit)], (rank, order * self._added, unit))

    def _pop(self, kind: Role) -> Any:
        return heapq.heappop(self._waiting[kind])[-1]
