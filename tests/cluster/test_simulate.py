"""The simulation against runs that can be counted by hand."""

import pytest

from bench.cluster.simulate import simulate
from bench.run.units import Judge, Piece, Serve


def test_one_worker_takes_the_sum() -> None:
    """3 s to start, 2 + 4 s to serve, 1 s to judge each: 11 s, of which 8 are work."""
    serving = {Serve(0, Piece()): 2.0, Serve(1, Piece()): 4.0}
    found = simulate(serving, {i: [(Judge(i, 0), 1.0)] for i in (0, 1)}, workers=1, start_s=3.0)
    assert (found.units, found.duration_s) == (4, 11.0)
    assert found.busy == pytest.approx(8 / 11)


def test_the_longest_goes_first() -> None:
    """Seconds 1, 1, 1, 3 on two workers: 3 beside 1 + 1 + 1, both busy throughout.  (In order, it would take 4.)"""
    found = simulate({Serve(i, Piece()): s for i, s in enumerate([1.0, 1.0, 1.0, 3.0])}, {}, workers=2)
    assert (found.duration_s, found.busy) == (3.0, 1.0)


def test_judges_wait_for_every_piece_of_their_point() -> None:
    """Pieces of 1 and 3 s side by side, then the judge of 2 s alone: 5 s, 6 of 10 worker seconds busy."""
    serving = {Serve(0, Piece(0, 2)): 1.0, Serve(0, Piece(1, 2)): 3.0}
    found = simulate(serving, {0: [(Judge(0, 0), 2.0)]}, workers=2)
    assert (found.duration_s, found.busy) == (5.0, 0.6)


def test_a_slow_writer_holds_up_the_workers() -> None:
    """Eight units of 1 s on four workers take 2 s; a writer that needs 1 s for each takes 1 + 8."""
    units = {Serve(i, Piece()): 1.0 for i in range(8)}
    assert simulate(units, {}, workers=4).duration_s == 2.0
    assert simulate(units, {}, workers=4, keeping_s=1.0).duration_s == 9.0
