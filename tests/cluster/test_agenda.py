"""Who does what next: dearest first, nobody waits behind another at the end."""

from dataclasses import replace
from pathlib import Path

import pytest
from cluster_runs import prepared

from bench.cluster import agenda as deciding
from bench.cluster.agenda import Agenda, Held, Role, cost, cut, kind_of, most_pieces, pieces
from bench.run.units import Judge, Piece, Serve, Unit


def serve(position: int) -> Serve:
    return Serve(position, Piece())


def test_mixtures_come_before_judges_and_the_dearest_first() -> None:
    waiting = Agenda([(Judge(0, 0), 0.0), (serve(1), 1.0), (serve(2), 3.0), (serve(3), 1.0)], seats=1)
    order = [unit for _ in range(4) for _, unit in waiting.hand_out([Held()])]
    assert order == [serve(2), serve(1), serve(3), Judge(0, 0)]


def test_everybody_gets_one_unit_before_anybody_gets_a_second() -> None:
    none, one, two = (Held(n, "serve") for n in range(3))
    waiting = Agenda(((serve(i), 1.0) for i in range(6)), seats=3)
    assert [seat for seat, _ in waiting.hand_out([none, one, none])] == [0, 2, 0]  # then three wait for three seats
    assert list(waiting.hand_out([two, two, one])) == []
    assert [seat for seat, _ in waiting.hand_out([two, two, none])] == [2]


def test_a_seat_judges_when_too_many_generations_wait_and_until_none_does() -> None:
    """One seat may leave two generations open; the third's first verdict is due at once, and then all the others."""
    waiting = Agenda(((serve(i), 1.0) for i in range(9)), seats=1)
    for position in (0, 1):
        waiting.add(Judge(position, 0))
    assert all(isinstance(unit, Serve) for _, unit in waiting.hand_out([Held(0, "serve")]))
    waiting.add(Judge(2, 0))
    assert waiting.n_open == 3
    order: list[Unit] = []
    kind: Role = "serve"
    while len(order) < 4:
        for _, unit in waiting.hand_out([Held(0, kind)]):
            kind = kind_of(unit)
            waiting.done(unit)
            order.append(unit)
    assert order[:3] == [Judge(0, 0), Judge(1, 0), Judge(2, 0)] and isinstance(order[3], Serve)
    assert waiting.n_open == 0


def test_nobody_is_given_a_unit_to_come_of_the_other_kind() -> None:
    """Its actors would be at work at once, on one seat's cores."""
    waiting = Agenda([(Judge(i, 0), 0.0) for i in range(3)], seats=1)
    assert list(waiting.hand_out([Held(1, "serve")])) == []
    assert [seat for seat, _ in waiting.hand_out([Held(1, "judge")])] == [0]


def test_what_a_lost_worker_held_comes_next_in_its_order_and_counts_the_first_alone() -> None:
    waiting = Agenda([(serve(1), 1.0), (serve(2), 9.0)], seats=1)
    waiting.put_back(serve(4))
    assert waiting.failed(serve(3)) and waiting.failed(serve(3)) and not waiting.failed(serve(3))
    taken = [unit for _ in range(5) for _, unit in waiting.hand_out([Held(0)])]
    assert taken == [serve(3), serve(3), serve(4), serve(2), serve(1)]


def test_a_mixture_of_logits_costs_each_of_its_models(wide_suite: Path) -> None:
    """Five prompts of 220 samples; DExperts at alpha 1 runs three models."""
    work = prepared(wide_suite)
    costs = {work.planned[i].point.label: cost(work, serve(i)) for i in range(len(work.planned))}
    assert (costs["g1(alpha=0.5)"], costs["dexperts(alpha=1)"]) == (1100, 3300)
    assert cost(work, Serve(0, Piece(1, 4))) == 275


def test_large_points_are_cut_and_small_ones_left_whole(wide_suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs 1100 x (1, 1, 3): 5500 in all; two workers with two units each make 1375 a unit: 1, 1 and 3 pieces."""
    monkeypatch.setattr(deciding, "LEAST_COMPLETIONS", 100)
    monkeypatch.setattr(deciding, "UNITS_PER_WORKER", 2)
    work = prepared(wide_suite)
    places = {planned.point.label: i for i, planned in enumerate(work.planned)}
    units = [serve(places[label]) for label in ("base", "g1(alpha=0.5)", "dexperts(alpha=1)")]
    found = cut(work, units, workers=2)
    assert [unit.piece for unit in found] == [Piece(), Piece(), Piece(0, 3), Piece(1, 3), Piece(2, 3)]
    assert cut(work, units, workers=1) == units
    assert cut(replace(work, engine="vllm"), units, workers=2) == units  # five prompts are one shard


def test_a_point_is_cut_between_shards_where_an_engine_has_them() -> None:
    """250,000 completions of 10,000 prompts: 125 pieces of 2,000, or ten shards of 1,000 prompts."""
    assert (most_pieces(250_000, 10_000, None), most_pieces(250_000, 10_000, 1000)) == (125, 10)
    assert (most_pieces(250_000, 10_001, 1000), most_pieces(1_500, 96, 1000)) == (11, 1)


def test_evaluators_probe_beside_the_first_piece_alone() -> None:
    assert [unit.probes for unit in pieces(Serve(0, Piece(), (1, 2)), 3)] == [(1, 2), (), ()]
    assert pieces(Serve(0, None, (1,)), 3) == [Serve(0, None, (1,))]
