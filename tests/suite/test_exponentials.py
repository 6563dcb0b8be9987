"""Exponentials of logits: equal to float64's within float32's rounding."""

import math

import pytest
import torch

from bench.suite.exponentials import exponentials, log_totals


@pytest.mark.parametrize("level", [0.0, 20.0, -300.0, 5000.0])
def test_they_are_those_of_float64(level: float) -> None:
    logits = torch.randn(7, 4099, generator=torch.Generator().manual_seed(1)) * 4 + level
    exact = logits.double()
    powers, shift = exponentials(logits.clone())
    assert shift.shape == (7, 1) and (shift[:, 0] - exact.amax(-1)).abs().max() <= 1e-6 * max(1, abs(level))
    expected = (exact - shift).exp()
    assert torch.allclose(powers.double(), expected, rtol=5e-6 + 4e-7 * abs(level), atol=0)
    totals = log_totals(logits.clone())
    assert totals.dtype == torch.float64
    assert (totals - exact.logsumexp(-1)).abs().max() <= 1e-6 + 1e-7 * abs(level)


def test_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0), -math.inf], [-math.inf, 2.0, -math.inf]])
    assert log_totals(logits.clone()).tolist() == pytest.approx([math.log(4.0), 2.0], abs=1e-6)
    powers, _ = exponentials(logits)
    assert powers is logits and powers[:, 2].tolist() == [0.0, 0.0]
    assert (powers[0, 0] / powers[0, 1]).item() == pytest.approx(1 / 3, rel=1e-6)


@pytest.mark.parametrize("row", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_a_row_without_a_softmax_has_no_number(row: list[float]) -> None:
    assert not math.isfinite(log_totals(torch.tensor([row])).item())
