"""The overhead page's tables and curves follow from the ledger's lines."""

from typing import Any

from leaderboard.overhead import MODEL, SHOWN, cells, once, scaling


def line(
    method: str, batch_size: int, metric: str, value: float, ratio: float | None = None, **more: Any
) -> dict[str, Any]:
    found = {"method": method, "batch_size": batch_size, "new_tokens": 32 if batch_size else 0, "metric": metric}
    interval = {"ratio_low": ratio, "ratio_high": ratio, "n_rounds": 10, "busy": False, "within_floor": False}
    return found | {"value": value, "ratio_to_base": ratio} | interval | more


LINES = [
    line("base", 1, SHOWN, 0.002, 1.0),
    line("base", 8, SHOWN, 0.004, 1.0),
    line("dexperts", 1, SHOWN, 0.006, 3.0),
    line("dexperts", 8, SHOWN, 0.010, 2.5, busy=True),
    line("dexperts", 8, "peak_memory_bytes", 3 * 2**20),
    line("dexperts", 1, MODEL, 0.001, 3.0),
    line("dexperts", 8, MODEL, 0.001, 3.0),
    line("ensemble of 2", 8, SHOWN, 0.007, 1.75),
    line("dexperts", 0, "switch_s", 0.0005),
]


def test_a_cell_holds_one_batch_size_in_the_shown_units() -> None:
    first, second = cells(LINES)
    assert (first.batch_size, first.busy, second.batch_size, second.busy) == (1, False, 8, True)
    dexperts = next(cost for cost in second.costs if cost.method == "dexperts")
    assert dexperts.ratio.value == 2.5
    assert dexperts.details[SHOWN] == 10  # 0.010 s in ms
    assert dexperts.details["peak_memory_bytes"] == 3  # MiB
    assert dexperts.details["time_to_first_token_s"] is None


def test_curves_run_along_one_axis_with_the_model_beside_them() -> None:
    by_batch, by_members = scaling(LINES)  # one output length only: no curve over it
    curves = {curve.method: curve.points for curve in by_batch.measured}
    assert curves == {"base": ((1, 1.0), (8, 1.0)), "dexperts": ((1, 3.0), (8, 2.5))}
    assert [curve.points for curve in by_batch.model] == [((1, 3.0), (8, 3.0))]
    assert [curve.points for curve in by_members.measured] == [((1, 1.0), (2, 1.75))]


def test_what_happens_once_is_in_milliseconds() -> None:
    assert once(LINES) == [("dexperts", [None, 0.5, None])]


def test_nothing_timed_is_nothing_shown() -> None:
    assert cells([]) == [] and scaling([]) == [] and once([]) == []
