"""What units of work will take, by those of their kind that are done."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import median

from bench.run.prepare import Work
from bench.run.units import Judge, Serve, Unit


class Pace:
    """Of one work on one machine: its evaluators, and its mixtures by space, each have a pace of their own."""

    def __init__(self, work: Work, *done: Mapping[Unit, float]) -> None:
        """done: units and the seconds that each took, as several processes know them; they may grow."""
        self.work = work
        self._done = done

    def of(self, units: Iterable[Unit]) -> float:
        """Seconds of all these: each as long as the median of its kind, for each model that runs at a token; where none
        of its kind is done, of its class, or of all that is done.
        """
        took: dict[Hashable, list[float]] = {}
        for unit, seconds in (item for done in self._done for item in done.items()):
            for kind in self._kinds(unit):
                took.setdefault(kind, []).append(seconds / self._models(unit))
        each = {kind: median(seconds) for kind, seconds in took.items()}
        return sum(self._models(unit) * next((each[k] for k in self._kinds(unit) if k in each), 0.0) for unit in units)

    def left_of(self, units: Sequence[Unit], under_way_s: float) -> float:
        """Seconds that are left of units done one after another, of which the first began so long ago."""
        return self.of(units) - min(under_way_s, self.of(units[:1]))

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
