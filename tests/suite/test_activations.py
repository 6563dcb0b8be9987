"""GELU in pieces, against the formula in double precision."""

import pytest
import torch

from bench.suite.activations import PIECE, SMALL, BlockedGELU


@pytest.mark.parametrize("shape", [(3, 5), (2, SMALL), (2, PIECE // 2 + 7)])  # torch's own, a piece, a piece and a bit
def test_the_blocked_gelu_is_the_tanh_formula(shape: tuple[int, int]) -> None:
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.gelu(x.double(), approximate="tanh")
    with torch.inference_mode():
        rounded = BlockedGELU()(x.bfloat16())
        assert torch.allclose(rounded.double(), expected, rtol=1e-2, atol=1e-2)  # bfloat16 has 8 bits
        assert torch.allclose(BlockedGELU()(x.clone()).double(), expected, rtol=1e-5, atol=1e-6)


def test_it_has_a_gradient() -> None:
    x = torch.randn(2, SMALL, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expected = torch.autograd.grad(torch.nn.functional.gelu(x, approximate="tanh").sum(), x)
    assert torch.equal(torch.autograd.grad(BlockedGELU()(x).sum(), x)[0], expected[0])
