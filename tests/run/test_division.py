"""Who of two processes does what: by hand, and the law that both end together whatever units take."""

import random
from collections.abc import Collection, Iterable, Mapping

import pytest

from bench.run.division import MARGIN, Division
from bench.run.pace import Pace
from bench.run.units import Judge, Piece, Serve, Unit


class Known(Pace):
    """Every unit takes what it is said to take."""

    def __init__(self, seconds: Mapping[Unit, float]) -> None:
        self.seconds = seconds

    def each(self, units: Iterable[Unit]) -> list[float]:
        return [self.seconds[unit] for unit in units]


A, B, C, D = (Serve(position, Piece()) for position in range(4))
QUICK, SLOW = 0, 1  # evaluators


def division(
    to_serve: Iterable[Serve], to_judge: Iterable[Judge] = (), by_either: Collection[int] = (QUICK, SLOW)
) -> Division:
    seconds: dict[Unit, float] = dict.fromkeys((A, B, C, D), 4.0)
    seconds |= {Judge(p, evaluator): 1.0 + 2 * evaluator for p in range(4) for evaluator in (QUICK, SLOW)}
    return Division(list(to_serve), list(to_judge), Known(seconds), by_either)


def test_here_mixtures_come_in_order_then_the_longest_verdict_of_the_last_point() -> None:
    left = division([A, B], [Judge(p, e) for p in (2, 3) for e in (QUICK, SLOW)])
    done = [left.next_here() for _ in range(7)]
    assert done == [A, B, Judge(3, SLOW), Judge(2, SLOW), Judge(3, QUICK), Judge(2, QUICK), None]


def test_what_only_the_second_process_may_judge_is_left_to_it() -> None:
    left = division([], [Judge(2, QUICK), Judge(2, SLOW), Judge(3, QUICK)], by_either=(SLOW,))
    assert [left.next_here() for _ in range(2)] == [Judge(2, SLOW), None]
    assert left.next_beside(0.1, lambda _: True) == []
    assert [left.next_beside(None, lambda _: True) for _ in range(3)] == [[Judge(2, QUICK)], [Judge(3, QUICK)], []]


def test_beside_a_points_verdicts_come_together_then_the_last_mixture_that_may_be_lent() -> None:
    left = division([A, B, C, D], [Judge(2, QUICK), Judge(3, SLOW), Judge(2, SLOW)])
    assert left.next_beside(None, lambda _: True) == [Judge(2, QUICK), Judge(2, SLOW)]
    assert left.next_beside(4.0 * MARGIN, lambda _: True) == []
    assert left.next_beside(4.0 * MARGIN - 0.1, lambda _: True) == [Judge(3, SLOW)]
    assert left.next_beside(None, lambda unit: unit != D) == [C]
    assert left.next_beside(None, lambda _: False) == []
    assert [left.next_beside(None, lambda _: True) for _ in range(3)] == [[D], [B], []]
    assert left.next_here() == A and left.next_here() is None


def test_beside_nothing_is_given_where_this_process_has_nothing_left() -> None:
    assert division([]).next_beside(1.0, lambda _: True) == division([]).next_beside(None, lambda _: True) == []


@pytest.mark.parametrize("seed", range(20))
def test_both_end_together_and_each_unit_is_done_once(seed: int) -> None:
    """Two processes by the clock; mixtures take 1 to 3 s, and their verdicts together 0.2 to 6 s."""
    rng = random.Random(seed)
    serving = [Serve(position, Piece()) for position in range(30)]
    seconds: dict[Unit, float] = {unit: rng.uniform(1, 3) for unit in serving}
    seconds |= {Judge(p, e): rng.uniform(0.1, 3) * rng.random() for p in range(30) for e in (QUICK, SLOW)}
    pace = Known(seconds)
    left, now, done = Division(serving, [], pace, (QUICK, SLOW)), 0.0, list[Unit]()
    todo, free_at, done_there = list[Unit](), 0.0, list[tuple[float, Unit]]()

    def verdicts(unit: Unit) -> list[Judge]:
        return [Judge(unit.position, e) for e in (QUICK, SLOW)] if isinstance(unit, Serve) else []

    while True:
        for at, unit in [x for x in done_there if x[0] <= now]:
            done_there.remove((at, unit))
            todo.remove(unit)
            done.append(unit)
            left.to_judge += verdicts(unit)
        while given := left.next_beside(max(free_at - now, 0.0) if todo else None, lambda _: True):
            for unit in given:
                free_at = max(free_at, now) + seconds[unit]
                todo.append(unit)
                done_there.append((free_at, unit))
        here = left.next_here()
        if here is not None:
            now += seconds[here]
            done.append(here)
            left.to_judge += verdicts(here)
        elif todo:
            now = min(at for at, _ in done_there)
        else:
            break
    assert sorted(done, key=repr) == sorted(seconds, key=repr)
    assert now <= sum(seconds.values()) / 2 + 4
