"""The overhead page's tables and curves follow from the ledger's lines."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toyboard import MakeDatabase, make_suite

from bench.schema import Number, OverheadRecord
from bench.store.write import Store
from leaderboard.measure.overhead import (
    ACCEPTANCE,
    JOULES,
    MODEL,
    MONEY,
    SHOWN,
    SPEED_UP,
    THROUGHPUT,
    Curve,
    Scaling,
    cells,
    drafts,
    ledgers,
    once,
    scaling,
    spending,
)
from leaderboard.measure.rank import find_series
from leaderboard.read.query import read_boards
from leaderboard.show.render import render


def line(
    method: str, batch_size: int, metric: str, value: float, ratio: float | None = None, **more: Any
) -> dict[str, Any]:
    found = {"method": method, "batch_size": batch_size, "new_tokens": 32 if batch_size else 0, "metric": metric}
    found |= {"role": "method", "members": 1}
    interval = {"ratio_low": ratio, "ratio_high": ratio, "n_rounds": 10}
    absent = dict.fromkeys(("currency", "per_hour", "power", "reason"))
    noise = absent | {"busy": False, "within_floor": False, "floor": [0.95, 1.05]}
    noise |= {"load_average": 2.54, "others_cores": 0.3}
    return found | {"value": value, "ratio_to_base": ratio} | interval | noise | more


LINES = [
    line("base", 1, SHOWN, 0.002, 1.0, role="base"),
    line("base", 8, SHOWN, 0.004, 1.0, role="base", busy=True),
    line("dexperts", 1, SHOWN, 0.006, 3.0),
    line("dexperts", 8, SHOWN, 0.010, 2.5),
    line("dexperts", 8, "peak_memory_bytes", 3 * 2**20),
    line("dexperts", 1, MODEL, 0.001, 3.0),
    line("dexperts", 8, MODEL, 0.001, 3.0),
    line("ensemble of 2", 8, SHOWN, 0.007, 1.75, role="ensemble", members=2),
    line("dexperts", 0, "switch_s", 0.0005),
]


def test_a_cell_holds_one_batch_size_in_the_shown_units() -> None:
    first, second = cells(LINES)
    assert (first.batch_size, first.busy, first.floor) == (1, None, [0.95, 1.05])
    assert (second.batch_size, second.busy) == (8, "load before: 2.5; cores that others took meanwhile: 0.3")
    dexperts = next(cost for cost in second.costs if cost.method == "dexperts")
    assert dexperts.ratio.value == 2.5
    assert dexperts.details[SHOWN] == 10  # 0.010 s in ms
    assert dexperts.details["peak_memory_bytes"] == 3  # MiB
    assert dexperts.details["time_to_first_token_s"] is None
    assert first.remarks == ("No price: the suite names none.", "No joules: no power reading.")
    assert "Price" not in {label for _, label, _ in first.columns}


PRICED = [
    *LINES,
    line("dexperts", 8, THROUGHPUT, 400.0, 0.4, low=390.0, high=410.0),
    line("dexperts", 8, MONEY, 2.5, 2.5, low=2.4, high=2.6, currency="EUR", per_hour=3.6),
    line("dexperts", 8, JOULES, 5e4, 2.5, low=4e4, high=6e4, power="RAPL, 1 package"),
]


def test_money_and_joules_stand_in_their_cell() -> None:
    second = cells(PRICED)[1]
    assert second.remarks == ("Price: 3.6 EUR an hour.", "Joules: RAPL, 1 package, all that it drew.")
    assert ("money_per_million_tokens", "Price", "EUR a million tokens") in second.columns
    dexperts = next(cost for cost in second.costs if cost.method == "dexperts")
    assert (dexperts.details[MONEY], dexperts.details[JOULES]) == (2.5, 5e4)


def test_what_serving_takes_at_the_largest_batch(make_database: MakeDatabase) -> None:
    with closing(Store.open(make_database(make_suite()), checked=False)) as store:
        (board,) = read_boards(store, 0, "toy.db")
    series = find_series(board)
    assert spending(board, series) is None
    lines = tuple(x | {"made_by": x["method"], "recipe": {"space": "logits", "filter_p": None}} for x in PRICED)
    found = spending(replace(board, overhead=lines), series)
    assert found is not None and (found.batch_size, found.new_tokens, found.floor) == (8, 32, [0.95, 1.05])
    assert [title for _, title in found.columns] == ["Tokens/s", "EUR a million tokens", "J a million tokens"]
    assert found.by_series["dexperts"][MONEY] == Number(2.5, 2.4, 2.6, 10, 10)
    assert found.by_series["g2"][JOULES].reason == "not timed" and not found.as_base


def test_curves_run_along_one_axis_with_the_model_beside_them() -> None:
    by_batch, by_members = scaling(LINES)  # one output length only: no curve over it
    curves = {curve.method: curve.points for curve in by_batch.measured}
    assert curves == {"base": ((1, 1.0), (8, 1.0)), "dexperts": ((1, 3.0), (8, 2.5))}
    assert [curve.points for curve in by_batch.model] == [((1, 3.0), (8, 3.0))]
    assert [curve.points for curve in by_members.measured] == [((1, 1.0), (2, 1.75))]


def test_names_of_curves_that_end_together_stand_apart() -> None:
    """A chart up to 3 * 1.08 = 3.24 with names of a fifteenth, 0.216, each: 2.5 stays, 2.6 goes up to 2.716."""
    flat = Curve("g1", ((1, 1.0), (8, 1.1)))
    plot = Scaling("", "", (flat, Curve("b", ((1, 3.0), (8, 2.6))), Curve("a", ((1, 2.0), (8, 2.5)))), ())
    assert plot.labels == [("a", 2.5), ("b", pytest.approx(2.716))]
    assert plot.width == 720 < Scaling("", "", (Curve("dexperts(alpha=1, draft=g2)", ((1, 3.0),)),), ()).width


def test_what_happens_once_is_in_milliseconds() -> None:
    assert once(LINES) == [("dexperts", [None, 0.5, None])]


def test_a_draft_stands_beside_what_was_predicted_of_it() -> None:
    facts = {"k": 4, "against": "dexperts", "role": "strength"}
    timed = [
        line("drafted", batch, metric, value, low=1.5, high=2.1, **facts, predicted=predicted)
        for batch in (8, 1)
        for metric, value, predicted in ((ACCEPTANCE, 0.9, 0.95), (SPEED_UP, 1.8, 1.97))
    ]
    small, large = drafts([*LINES, *timed])
    assert (small.batch_size, large.batch_size) == (1, 8)
    assert (small.k, small.acceptance, small.expected_acceptance, small.expected_quick) == (4, 0.9, 0.95, 1.97)
    assert small.quick == Number(1.8, 1.5, 2.1, 10, 10)


def test_nothing_timed_is_nothing_shown() -> None:
    assert cells([]) == [] and scaling([]) == [] and once([]) == []


def test_ledgers_of_other_engines_follow_the_board_s_own(make_database: MakeDatabase, tmp_path: Path) -> None:
    """Points on transformers only; timed there at batch 1 and, without a point of its own, on vLLM at batch 8."""
    path = make_database(make_suite())
    with closing(Store.open(path)) as store:
        for engine, metric, batch_size in (
            ("vllm", SHOWN, 8), ("transformers", SHOWN, 1), ("pytest-benchmark", "call_s", 2),
        ):  # fmt: skip
            records = [
                OverheadRecord(
                    method=method, role=role, members=1, batch_size=batch_size, new_tokens=8,
                    metric=metric, value=0.1, n_rounds=3, details={"floor": [0.9, 1.1]},
                )
                for method, role in (("base", "base"), ("antiexpert", "method"))  # as timed, not as sorted
            ]  # fmt: skip
            store.add_overhead(1, engine, records, 1, replace=False)
        (board,) = read_boards(store, 0, "toy.db")
    found = [(ledger.engine, [cell.batch_size for cell in ledger.cells]) for ledger in ledgers(board)]
    assert found == [("transformers", [1]), ("vllm", [8])]
    assert [cost.method for cost in ledgers(board)[1].cells[0].costs] == ["base", "antiexpert"]
    render([path], tmp_path)
    page = (tmp_path / "overhead.html").read_text()
    assert '<h2 id="batch-1-8">Batch 1' in page and '<h2 id="vllm-batch-8-8">Engine vllm: Batch 8' in page
    assert "base over base 0.900 to 1.100" in page
    assert ">Time over base</th>" in (tmp_path / "ranking.html").read_text()
