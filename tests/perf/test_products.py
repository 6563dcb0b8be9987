"""The CPU's kernels that engines and judges use, against torch's own, one thread.

python -m pytest tests/perf/test_products.py -s        (a quiet machine)
"""

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from bench.engines.sampling import nucleus
from bench.suite.activations import BlockedGELU
from bench.suite.exponentials import exponentials, log_totals
from bench.suite.products import _onednn, by_onednn, halved, has_bfloat16, product


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def times(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], what: str) -> float:
    """How often ours is done in the time that theirs takes: least times of interleaved rounds."""
    least = [float("inf")] * 2
    for _ in range(40):
        for i, run in enumerate((ours, theirs)):
            started = time.perf_counter()
            run()
            least[i] = min(least[i], time.perf_counter() - started)
    print(f"\n{what}: {1e6 * least[0]:,.0f} us, torch's own {1e6 * least[1]:,.0f} us, {least[1] / least[0]:.2f} times")
    return least[1] / least[0]


@pytest.mark.parametrize("layout", ["Linear", "Conv1D"])
@pytest.mark.parametrize("rows", [4, 20, 384])
def test_products(rows: int, layout: str) -> None:
    x, bias = torch.randn(rows, 768), torch.randn(3072)
    weight = torch.randn(3072, 768) if layout == "Linear" else torch.randn(768, 3072).t()
    ratio = times(
        lambda: product(x, weight, bias),
        lambda: nn.functional.linear(x, weight, bias) if layout == "Linear" else torch.addmm(bias, x, weight.t()),
        f"{rows} rows by 768 x 3072, {layout}",
    )
    assert ratio >= 0.8  # where both use all that the processor has, they are alike


@pytest.mark.parametrize(("width", "copies"), [(3072, 12), (50257, 1)], ids=["layers", "head"])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_drafts_products(rows: int, width: int, copies: int) -> None:
    """In bfloat16 against `product`, by weights that no cache holds; without such instructions nobody uses them."""
    model = nn.Sequential(*(nn.Linear(768, width) for _ in range(copies)))
    by_onednn(model)
    x, twin = torch.randn(rows, 768), halved(model)
    ratio = times(
        lambda: torch.cat([layer(x) for layer in twin]),
        lambda: torch.cat([layer(x) for layer in model]),
        f"bfloat16, {copies} x {rows} rows by 768 x {width}, beside float32 as torch's own",
    )
    assert ratio >= 1.3 or not has_bfloat16()


def test_gelu_in_a_product() -> None:
    x, weight, bias = torch.randn(384, 160), torch.randn(160, 640).t(), torch.randn(640)
    ratio = times(
        lambda: _onednn(x, weight, bias, "gelu", "tanh"),
        lambda: BlockedGELU()(product(x, weight, bias)),
        "384 x 160 by 160 x 640 with GELU, beside one behind the other as torch's own",
    )
    assert ratio >= 1.05


def test_gelu() -> None:
    x = torch.randn(384, 768)
    ratio = times(lambda: BlockedGELU()(x), lambda: nn.functional.gelu(x, approximate="tanh"), "GELU of 384 x 768")
    assert ratio >= 1.5


def test_nucleus() -> None:
    logits = 2 * torch.randn(4, 50257)

    def by_sorting() -> Tensor:
        return logits.softmax(-1).sort(dim=-1, descending=True).values.cumsum(-1)

    assert times(lambda: nucleus(logits, 0.9), by_sorting, "the nucleus of 4 x 50,257") >= 1.5


def test_exponentials() -> None:
    """Of what a step draws from, and the sums that a text's probability needs; both in place, as they are used."""
    logits = torch.randn(128, 4096) * 4
    scratch = logits.clone()
    ratio = times(
        lambda: exponentials(scratch.copy_(logits))[0],
        lambda: scratch.copy_(logits).sub_(scratch.amax(dim=-1, keepdim=True)).exp_(),
        "exponentials of 128 x 4096",
    )
    sums = times(
        lambda: log_totals(scratch.copy_(logits)),
        lambda: scratch.copy_(logits).logsumexp(dim=-1),
        "the logarithms of their sums",
    )
    assert min(ratio, sums) >= 0.8
