"""Pure: who of two processes does what next.

This one serves, in order, and judges what it may when all is served; the second judges what is served, and serves
where it would wait.  It is given no more than it needs to be busy for as long as this one's next unit, so that what is
left can go to either, and both end together.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence

from bench.run.pace import Pace
from bench.run.units import Judge, Serve

MARGIN = 1.25  # units of a kind differ


class Division:
    """What is left to do for both: mixtures to serve, and verdicts that can be had."""

    def __init__(
        self, to_serve: Sequence[Serve], to_judge: Sequence[Judge], pace: Pace, by_either: Collection[int]
    ) -> None:
        """by_either: the places of the evaluators that this process may have, too."""
        self.to_serve = deque(to_serve)
        self.to_judge = list(to_judge)
        self.pace = pace
        self.by_either = by_either

    def next_here(self) -> Serve | Judge | None:
        """What this process does next, no longer left: the first mixture, else of its verdicts the longest."""
        if self.to_serve:
            return self.to_serve.popleft()
        longest = self._longest()
        if longest is not None:
            self.to_judge.remove(longest)
        return longest

    def next_beside(self, busy_s: float | None, may_serve: Callable[[Serve], bool]) -> list[Judge] | list[Serve]:
        """What the second process is given, no longer left; nothing where it has enough for this one's next unit.

        busy_s: how long it is busy; None where it has nothing to do.  Verdicts come first, those on one point together,
        else the last mixture that it may serve; the next one is for this process.
        """
        here = self.to_serve[0] if self.to_serve else self._longest()
        if busy_s is not None and (here is None or busy_s >= MARGIN * self.pace.of([here])):
            return []
        if self.to_judge:
            position = self.to_judge[0].position
            chosen = [unit for unit in self.to_judge if unit.position == position]
            self.to_judge = [unit for unit in self.to_judge if unit.position != position]
            return chosen
        lent = next((unit for unit in list(self.to_serve)[:0:-1] if may_serve(unit)), None)
        if lent is None:
            return []
        self.to_serve.remove(lent)
        return [lent]

    def _longest(self) -> Judge | None:
        """Of the last points first, since the second process begins with the others."""
        mine = [unit for unit in reversed(self.to_judge) if unit.evaluator in self.by_either]
        seconds = self.pace.each(mine)
        return mine[seconds.index(max(seconds))] if mine else None
