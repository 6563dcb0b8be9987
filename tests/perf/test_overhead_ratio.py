"""The ledger's promise on a quiet machine: the mini suite in under three minutes, weight mixing at the base's speed.

make bench        (about two minutes on two cores)
"""

import time

import pytest

import evaluators
import methods
from bench import engines
from bench.execute import SilentReporter, Work, prepare
from bench.overhead import time_suite
from bench.overhead_ledger import Cell
from bench.schema import OverheadRecord, OverheadSpec
from bench.suite import load_suite

MAIN = "time_per_output_token_s"
SPEC = OverheadSpec()


@pytest.fixture(scope="module")
def work() -> Work:
    registries = methods.registry(), evaluators.registry()
    suite = load_suite("mini", *registries).model_copy(update={"evaluators": ()})
    return prepare(suite, *registries, "transformers", engines.engine_version("transformers"))


@pytest.fixture(scope="module")
def ledger(work: Work) -> tuple[list[OverheadRecord], float]:
    """The lines of the mini suite, and the seconds that they took."""
    device = engines.device()

    def open_engine() -> engines.Engine:
        return engines.engine_class("transformers")(work.checkpoints, work.suite.dtype, device)

    started = time.perf_counter()
    found = time_suite(
        work.suite, SPEC, work.points, methods.registry(), work.prompts, work.checkpoints, open_engine, device,
        SilentReporter().task,
    )  # fmt: skip
    return found, time.perf_counter() - started


def line(records: list[OverheadRecord], method: str, cell: Cell) -> OverheadRecord:
    (found,) = [r for r in records if (r.method, r.batch_size, r.new_tokens, r.metric) == (method, *cell, MAIN)]
    return found


@pytest.mark.parametrize("batch_size", SPEC.batch_sizes)
@pytest.mark.parametrize("method", ["g1", "g2", "g3", "dexperts"])
def test_time_over_the_base(ledger: tuple[list[OverheadRecord], float], method: str, batch_size: int) -> None:
    """Mixed weights cost what the base costs, to a tenth (a single round's noise); DExperts about three bases.

    More than three where one model fits the cache and three do not.
    """
    found = line(ledger[0], method, (batch_size, SPEC.new_tokens[0]))
    print(f"\n{method}, batch {batch_size}: {found.ratio_to_base:.3f} [{found.ratio_low:.3f}, {found.ratio_high:.3f}]")
    if found.details["busy"]:
        pytest.skip(f"the machine is busy: {found.details['others_cores']} cores used by others")
    if method == "dexperts":
        assert found.ratio_to_base is not None and 1.5 < found.ratio_to_base < 4.5
    else:
        assert found.ratio_to_base is not None and abs(found.ratio_to_base - 1) < 0.1


def test_the_mini_suite_takes_less_than_three_minutes(ledger: tuple[list[OverheadRecord], float]) -> None:
    print(f"\n{ledger[1]:.0f} s")
    assert ledger[1] < 180
