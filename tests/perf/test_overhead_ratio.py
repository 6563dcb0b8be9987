"""The ledger's promise on a quiet machine: the mini suite in under three minutes, weight mixing at the base's speed.

make bench        (about two minutes on two cores)
"""

import time

import pytest

import lerpbench as lb
import methods
from bench import engines
from bench.overhead.ledger import Cell
from bench.overhead.stopwatch import time_suite
from bench.progress import silently
from bench.run.prepare import Work
from bench.schema import OverheadRecord, OverheadSpec

MAIN = "time_per_output_token_s"
SPEC = OverheadSpec()


@pytest.fixture(scope="module")
def work() -> Work:
    return lb.prepare(lb.load("mini").model_copy(update={"evaluators": ()}), "transformers")


@pytest.fixture(scope="module")
def ledger(work: Work) -> tuple[list[OverheadRecord], float]:
    """The lines of the mini suite, and the seconds that they took."""
    device = engines.device()

    def open_engine() -> engines.Engine:
        return engines.engine_class("transformers")(work.checkpoints, work.suite.dtype, device)

    started = time.perf_counter()
    found = time_suite(
        work.suite, SPEC, work.points, methods.registry(), work.prompts, work.checkpoints, open_engine, device,
        silently,
    )  # fmt: skip
    return found, time.perf_counter() - started


def line(records: list[OverheadRecord], method: str, cell: Cell) -> OverheadRecord:
    (found,) = [r for r in records if (r.method, r.batch_size, r.new_tokens, r.metric) == (method, *cell, MAIN)]
    return found


@pytest.mark.parametrize("batch_size", SPEC.batch_sizes)
@pytest.mark.parametrize("new_tokens", SPEC.new_tokens)
@pytest.mark.parametrize("method", ["g1", "g2", "g3", "dexperts"])
def test_time_over_the_base(
    ledger: tuple[list[OverheadRecord], float], method: str, new_tokens: int, batch_size: int
) -> None:
    """Mixed weights cost what the base costs, within what base against base shows; DExperts about three bases.

    More than three where one model fits the cache and three do not.
    """
    found = line(ledger[0], method, (batch_size, new_tokens))
    low, high = found.details["floor"]
    print(
        f"\n{method}, batch {batch_size}, {new_tokens} tokens: {found.ratio_to_base:.3f} "
        f"[{found.ratio_low:.3f}, {found.ratio_high:.3f}], floor {low:.3f} to {high:.3f}, {found.n_rounds} rounds"
    )
    if found.details["busy"]:
        pytest.skip(f"the machine is busy: {found.details['others_cores']} cores used by others")
    assert found.ratio_to_base is not None and found.n_rounds >= SPEC.rounds
    if method == "dexperts":
        assert 1.5 < found.ratio_to_base < 4.5
    else:
        assert low <= found.ratio_to_base <= high


def test_the_mini_suite_takes_less_than_three_minutes(ledger: tuple[list[OverheadRecord], float]) -> None:
    print(f"\n{ledger[1]:.0f} s")
    assert ledger[1] < 180
