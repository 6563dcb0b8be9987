"""What units of work will take, by those of their kind that are done."""

from collections.abc import Hashable, Iterable, Mapping
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
        """Seconds of all these: each as long as the median of its kind, or of all kinds where none of it is done."""
        took: dict[Hashable, list[float]] = {}
        for unit, seconds in (item for done in self._done for item in done.items()):
            took.setdefault(self._kind(unit), []).append(seconds)
        each = {kind: median(seconds) for kind, seconds in took.items()}
        usual = median(each.values()) if each else 0.0
        return sum(each.get(self._kind(unit), usual) for unit in units)

    def _kind(self, unit: Unit) -> Hashable:
        match unit:
            case Serve():
                return self.work.points[unit.position].recipe.space
            case Judge():
                return unit.evaluator
        return "checkpoints"
