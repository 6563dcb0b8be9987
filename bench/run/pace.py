"""What units of work will take, by those of their kind that are done."""

from bisect import insort
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import islice

from bench.run.prepare import Work
from bench.run.units import Judge, Serve, Unit


class Pace:
    """Of one work on one machine: its evaluators, and its mixtures by space, each have a pace of their own."""

    def __init__(self, work: Work, *done: Mapping[Unit, float]) -> None:
        """done: units and the seconds that each took, as several processes know them; they may grow."""
        self.work = work
        self._done = done
        self._read = [0] * len(done)  # how many of each are known here
        self._took: dict[Hashable, list[float]] = {}  # by kind, seconds a model in order

    def each(self, units: Iterable[Unit]) -> list[float]:
        """Seconds of each: the median of its kind, for each model that runs at a token; where none of its kind is done,
        of its class, or of all that is done.
        """
        for i, done in enumerate(self._done):
            for unit, seconds in islice(done.items(), self._read[i], None):
                for kind in self._kinds(unit):
                    insort(self._took.setdefault(kind, []), seconds / self._models(unit))
            self._read[i] = len(done)
        return [self._models(unit) * self._usual(unit) for unit in units]

    def of(self, units: Iterable[Unit]) -> float:
        """Seconds of all these."""
        return sum(self.each(units))

    def left_of(self, units: Sequence[Unit], under_way_s: float) -> float:
        """Seconds that are left of units done one after another, of which the first began so long ago."""
        return self.of(units) - min(under_way_s, self.of(units[:1]))

    def _usual(self, unit: Unit) -> float:
        took = next((self._took[kind] for kind in self._kinds(unit) if kind in self._took), [0.0])
        return (took[(len(took) - 1) // 2] + took[len(took) // 2]) / 2

    def _kinds(self, unit: Unit) -> list[Hashable]:
        """What a unit's pace is known by, the closest first."""
        match unit:
            case Serve():
                closest: Hashable = self.work.points[unit.position].recipe.space
            case Judge():
                closest = unit.evaluator
            case _:
                closest = "checkpoints"
        return [closest, type(unit).__name__, "all"]

    def _models(self, unit: Unit) -> int:
        """How many models run at each token."""
        return self.work.points[unit.position].recipe.models_per_token if isinstance(unit, Serve) else 1
