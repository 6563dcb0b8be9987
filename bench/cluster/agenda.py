"""Pure: which unit is done next, and by whom.  The same decisions place a run's units and a simulation's.

Mixtures are served before completions are judged, the dearest first, so that what is left at the end is short; judging
follows in the order of generation.  A worker gets its next unit while it does one, as long as many wait: it then never
waits for the driver, and at the end nobody waits behind another.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil

from bench import engines
from bench.run.prepare import Work
from bench.run.units import Piece, Serve, Unit

TRIES = 3
UNITS_PER_WORKER = 8  # of one size at least: the last of them then holds up a run by an eighth of a worker's share
LEAST_COMPLETIONS = 2_000  # of a piece: below it, changing mixtures costs more than a worker that waits


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
    if not engines.divides(work.engine):
        return list(units)
    return in_pieces({unit: cost(work, unit) for unit in units}, workers, work.completions_per_point)


def in_pieces(costs: Mapping[Serve, float], workers: int, completions_per_point: int) -> list[Serve]:
    """No unit dearer than an eighth of a worker's share, and no piece too small."""
    most = max(1, completions_per_point // LEAST_COMPLETIONS)
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
    """What waits, and how often each unit was tried."""

    def __init__(self, costs: Iterable[tuple[Unit, float]]) -> None:
        self._waiting: list[tuple[bool, float, int, Unit]] = []
        self._tries: dict[Unit, int] = {}
        self._added = 0
        for unit, dear in costs:
            self.add(unit, dear)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, unit: Unit, dear: float = 0.0) -> None:
        self._added += 1
        heapq.heappush(self._waiting, (not isinstance(unit, Serve), -dear, self._added, unit))

    def hand_out(self, holding: Sequence[int]) -> Iterator[tuple[int, Unit]]:
        """(worker, unit), given how many units each worker holds: one for everybody first, then one to come."""
        held = list(holding)
        for depth in (1, 2):
            for worker, n in enumerate(held):
                enough = depth == 1 or len(self) > len(held)
                if n < depth and self._waiting and enough:
                    held[worker] += 1
                    yield worker, heapq.heappop(self._waiting)[-1]

    def put_back(self, unit: Unit) -> None:
        """It comes before all that waits."""
        self._added += 1
        heapq.heappush(self._waiting, (False, -float("inf"), -self._added, unit))

    def failed(self, unit: Unit) -> bool:
        """Put a unit back whose worker was lost; False where that was its last try."""
        self._tries[unit] = self._tries.get(unit, 0) + 1
        if self._tries[unit] < TRIES:
            self.put_back(unit)
        return self._tries[unit] < TRIES
