"""Two protocols on known numbers: order, flips, chance, and what a rule leaves out."""

from collections.abc import Mapping
from dataclasses import replace
from math import hypot

import numpy as np
import pytest
from toyboard import PROMPTS

from bench.schema import Number
from evaluators.protocols import PROTOCOLS, Protocol
from leaderboard.measure.levels import find_levels
from leaderboard.measure.protocols import Lens, Table, look, separate
from leaderboard.measure.rank import find_series
from leaderboard.read.board import ALL, Board, MetricInfo

PAIR = {
    "one": Protocol(source="", metrics={"sentiment": "sentiment", "perplexity": "perplexity"}, rules={}),
    "two": Protocol(source="", metrics={"sentiment": "sentiment", "perplexity": "surprise"}, rules={}),
}


def lens_of(board: Board, known: Mapping[str, Protocol] = PROTOCOLS) -> Lens:
    series = find_series(board)
    return look(board, series, find_levels(board, series), known)


@pytest.fixture(scope="module")
def lens(board: Board) -> Lens:
    return lens_of(board)


def with_costs(board: Board, one: Mapping[str, float], two: Mapping[str, float]) -> Board:
    """The board with these costs by setting, equal on every prompt, under `perplexity` and under `surprise`."""
    at = {place.label: i for i, place in enumerate(board.places)}
    sums, results = dict(board.per_prompt), dict(board.results)
    for metric, costs in (("perplexity", one), ("surprise", two)):
        table = np.full((len(board.places), len(PROMPTS)), np.nan)
        for label, cost in costs.items():
            table[at[label]] = cost
            results[at[label], metric, ALL] = Number(cost, cost, cost, 36, 36)
        sums[metric] = replace(sums["sentiment"], numerators=table, denominators=np.where(np.isnan(table), np.nan, 1.0))
    metrics = {**board.metrics, **{name: MetricInfo(name, "lower") for name in ("perplexity", "surprise")}}
    return replace(board, per_prompt=sums, results=results, metrics=metrics)


def table_of(lens: Lens, slug: str, quantity: str) -> Table:
    return next(t for level, tables in lens.levels if level.slug == slug for t in tables if t.quantity == quantity)


def test_reversed_costs_flip_every_pair(board: Board) -> None:
    """10, 20, 30 against 30, 20, 10: ranks 1, 2, 3 and 3, 2, 1; three flips.

    On equal prompts no resample changes sign, so each p is 2 / 1001, and Holm's largest factor over three pairs is 3.
    """
    labels = ("g1(alpha=1)", "g2(alpha=0.5)", "dexperts(alpha=0.5)")
    one, two = (dict(zip(labels, costs, strict=True)) for costs in ((10.0, 20.0, 30.0), (30.0, 20.0, 10.0)))
    made = with_costs(board, one, two)
    table = table_of(lens_of(made, PAIR), "step-0.5", "perplexity")
    ranks = {name: {s.entry.label: s.rank for s in column} for name, column in table.columns.items()}
    assert ranks == {"one": dict(zip(labels, (1, 2, 3), strict=True)), "two": dict(zip(labels, (3, 2, 1), strict=True))}
    assert [s.entry.label for s in table.order("two")] == [*reversed(labels)]
    assert (len(table.flips), table.n_pairs) == (3, 3)
    assert all(flip.p_holm == pytest.approx(6 / 1001) and flip.beyond_chance for flip in table.flips)


def test_a_tie_is_no_flip(board: Board) -> None:
    labels = ("g1(alpha=1)", "g2(alpha=0.5)", "dexperts(alpha=0.5)")
    one, two = (dict(zip(labels, costs, strict=True)) for costs in ((10.0, 20.0, 20.0), (30.0, 20.0, 10.0)))
    made = with_costs(board, one, two)
    table = table_of(lens_of(made, PAIR), "step-0.5", "perplexity")
    pairs = {frozenset((flip.first.series.name, flip.second.series.name)) for flip in table.flips}
    assert pairs == {frozenset(("g1", "g2")), frozenset(("g1", "dexperts"))}
    assert [s.rank for s in table.columns["one"]] == [1, 2, 2]


def test_only_one_side_clear_is_not_beyond_chance(board: Board) -> None:
    """A difference that half of the prompts reverse is chance under the one protocol, whatever the other says."""
    labels = ("g2(alpha=1)", "dexperts(alpha=1)")
    made = with_costs(board, dict(zip(labels, (10.0, 20.0), strict=True)), dict(zip(labels, (20.0, 10.0), strict=True)))
    noisy = made.per_prompt["surprise"].numerators.copy()
    place = next(i for i, p in enumerate(made.places) if p.label == labels[0])
    noisy[place] = np.where(np.arange(len(PROMPTS)) % 2, 30.0, -9.0)  # mean 10.5, against 10
    made = replace(
        made, per_prompt={**made.per_prompt, "surprise": replace(made.per_prompt["surprise"], numerators=noisy)}
    )
    (flip,) = table_of(lens_of(made, PAIR), "step-1", "perplexity").flips
    assert flip.clear_under == ("one",)
    assert not flip.beyond_chance


def test_difference_from_two_intervals_by_hand() -> None:
    """0.6 [0.5, 0.7] minus 0.4 [0.35, 0.5]: 0.2, down by the root of 0.1^2 + 0.1^2, up by that of 0.1^2 + 0.05^2.

    The two together, 0.2532, are 3.92 standard errors of 0.0646; 0.2 is 3.096 of them, so p is 0.00196.
    """
    gap = separate(Number(0.6, 0.5, 0.7, 9, 9), Number(0.4, 0.35, 0.5, 9, 9))
    assert gap.difference.value == pytest.approx(0.2)
    assert gap.difference.low == pytest.approx(0.2 - hypot(0.1, 0.1))
    assert gap.difference.high == pytest.approx(0.2 + hypot(0.1, 0.05))
    assert gap.p == pytest.approx(0.00196, abs=2e-5)
    assert separate(Number(0.6, None, None, 9, 9), Number(0.4, 0.3, 0.5, 9, 9)).p == 1


def test_the_toys_protocols_disagree_on_logits(lens: Lens) -> None:
    """Made so: mixing logits costs exp(0.05) more in one perplexity and exp(0.2 - 0.05) less in the other."""
    table = table_of(lens, "step-1", "perplexity")
    assert [s.entry.series.name for s in table.order("paper")] == ["g2", "dexperts"]
    assert [s.entry.series.name for s in table.order("dexperts")] == ["dexperts", "g2"]
    (flip,) = table.flips
    assert flip.beyond_chance and flip.clear_under == ("paper", "dexperts")


def test_targets_are_scored_on_the_half_that_did_not_choose(lens: Lens) -> None:
    table = table_of(lens, "up-0.6", "perplexity")
    assert {s.result.n_total for column in table.columns.values() for s in column} == {7}


def test_each_protocol_ranks_by_its_own_metrics(board: Board, lens: Lens) -> None:
    assert lens.own is not None
    assert dict(lens.own.metrics) == {"paper": "sentiment", "dexperts": "fraction_positive"}
    for scored in lens.own.columns["dexperts"]:
        assert scored.entry.place is not None
        assert scored.result.value == board.value(scored.entry.place, "fraction_positive")


def test_what_a_rule_leaves_out_counts_each_text_once(lens: Lens) -> None:
    """One of 36 completions in each generation: 5 of g2's 180; the board has 34 generations.

    3 references; g1 brings 5, since its ends are the experts; g2 4, since 0 is the base; dexperts 5; g3 17 of 25, since
    base, experts, g1(1/2) and four of g2 are there.
    """
    (row,) = (row for row in lens.left_out if row.metric == "perplexity_dexperts")
    assert (row.n_dropped, row.n_total) == (34, 34 * 36)
    by_name = {s.name: (dropped, total, worst) for s, dropped, total, worst in row.by_series}
    assert by_name["g2"] == (5, 180, "alpha=-1")
    assert by_name["base"] == (1, 36, None)
    (row,) = (row for row in lens.left_out if row.metric == "fraction_positive")
    assert row.n_dropped == 0


def test_one_protocol_alone_is_no_lens(board: Board) -> None:
    lens = lens_of(board, {"one": PAIR["one"]})
    assert lens.levels == () and lens.own is None
    assert look(replace(board, metrics={}, results={}), find_series(board), []).protocols == {}
