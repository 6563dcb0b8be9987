"""Products by oneDNN against torch's own."""

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.pytorch_utils import Conv1D

from bench.suite.activations import BlockedGELU, block_gelus
from bench.suite.products import WORTH_HALVING, by_onednn, halved, product

WEIGHT = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # (N, K)
BIAS = torch.tensor([0.5, 0.0, -0.5])


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@torch.inference_mode()
def test_a_product_by_hand() -> None:
    x = torch.tensor([[1.0, 1.0], [2.0, -1.0]])
    assert product(x, WEIGHT, BIAS).tolist() == [[3.5, 7.0, 10.5], [0.5, 2.0, 3.5]]
    assert product(x, WEIGHT, None).tolist() == [[3.0, 7.0, 11.0], [0.0, 2.0, 4.0]]


@torch.inference_mode()
@pytest.mark.parametrize(
    "x", [normal(1, 16), normal(40, 16), normal(2, 3, 16), normal(5, 4, 16).transpose(0, 1), normal(0, 16)]
)
@pytest.mark.parametrize("weight", [normal(8, 16), normal(16, 8).t()])
def test_it_is_the_linear_map_of_any_layout(x: Tensor, weight: Tensor) -> None:
    expected = nn.functional.linear(x.double(), weight.double(), normal(8).double())
    found = product(x, weight, normal(8))
    assert found.shape == expected.shape
    assert torch.allclose(found.double(), expected, atol=1e-5)


@torch.inference_mode()
def test_other_dtypes_are_multiplied_by_torch() -> None:
    x, weight = normal(4, 16).bfloat16(), normal(8, 16).bfloat16()
    assert torch.equal(product(x, weight, None), nn.functional.linear(x, weight))


@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 16)])
@pytest.mark.parametrize("biased", [True, False])
def test_its_gradients_are_the_linear_map_s(shape: tuple[int, ...], biased: bool) -> None:
    given = [normal(*shape), normal(8, 16), *([normal(8)] if biased else [])]
    theirs = [x.clone().requires_grad_() for x in given]
    ours = [x.clone().requires_grad_() for x in given]
    nn.functional.linear(*theirs).square().sum().backward()
    product(ours[0], ours[1], ours[2] if biased else None).square().sum().backward()
    for x, y in zip(ours, theirs, strict=True):
        assert x.grad is not None and y.grad is not None
        assert torch.allclose(x.grad, y.grad, rtol=1e-4, atol=1e-4)


def test_a_frozen_weight_gets_no_gradient() -> None:
    x = normal(3, 16).requires_grad_()
    weight = normal(8, 16)
    product(x, weight, None).sum().backward()
    assert x.grad is not None and torch.allclose(x.grad, weight.sum(dim=0).expand(3, -1), atol=1e-5)
    assert weight.grad is None


@torch.inference_mode()
def test_a_model_keeps_its_kinds_and_follows_its_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Conv1D(2, 6))
    x = normal(3, 4)
    before = model(x)
    by_onednn(model)
    other = copy.deepcopy(model)
    assert isinstance(model[0], nn.Linear) and isinstance(model[2], Conv1D)
    assert torch.allclose(model(x), before, atol=1e-6)
    for parameter in model.parameters():
        parameter.mul_(2)  # as a mixture is written into a served model
    assert torch.allclose(model[0](x), 2 * other[0](x), atol=1e-6)
    assert torch.allclose(other(x), before, atol=1e-6)


class Two(nn.Module):
    """A layer of each kind, large enough for bfloat16, and a small one."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(64, WORTH_HALVING // 64)
        self.narrow = Conv1D(64, WORTH_HALVING // 64)
        self.small = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.small(self.narrow(self.wide(x)))
        return found


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 4, 70])
def test_a_halved_model_multiplies_in_bfloat16_and_shares_the_rest(rows: int) -> None:
    """By hand: inputs and weights are rounded, biases and the small layer are not."""
    model = Two()
    by_onednn(model)
    twin = halved(model)
    x = normal(rows, 64)
    wide = (x.bfloat16().double() @ model.wide.weight.bfloat16().double().t()).bfloat16() + model.wide.bias
    narrow = (wide.bfloat16().double() @ model.narrow.weight.bfloat16().double()).bfloat16() + model.narrow.bias
    assert torch.allclose(twin(x), model.small(narrow), rtol=2e-2, atol=2e-2)
    assert twin(x).dtype == torch.float32 and not torch.equal(twin(x), model(x))
    assert all(mine is its for mine, its in zip(model.parameters(), twin.parameters(), strict=True))
    before = model(x).clone()
    model.wide.weight.zero_()
    assert not torch.allclose(model(x), before) and torch.allclose(twin(x), model.small(narrow), rtol=2e-2, atol=2e-2)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 70])
def test_gpt2s_activation_is_a_part_of_the_product_before_it(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """W2 gelu(W1 x + b1) + b2 in float64; the activation itself is not called, but where numbers are few."""
    block = GPT2MLP(512, GPT2Config(n_embd=128, resid_pdrop=0.0)).eval()
    expected = copy.deepcopy(block).double()(normal(1, rows, 128).double())
    block_gelus(block)
    by_onednn(block)
    called = []
    monkeypatch.setattr(BlockedGELU, "forward", lambda self, x: called.append(len(x)) or x)
    found = block(normal(1, rows, 128))
    assert (called == []) is (rows == 70)
    if rows == 70:
        assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-5)
