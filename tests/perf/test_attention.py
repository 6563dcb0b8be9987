"""Attention of rows that share their prompt's keys, against one batched product of single queries over all keys.

python -m pytest tests/perf/test_attention.py -s        (one thread; a quiet machine)
"""

import time
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from bench.engines import attention
from bench.engines.attention import Beginnings, decoding_attention

LAYERS, PROMPTS, SAMPLES, HEADS, SIZE, BEFORE = 5, 24, 25, 5, 32, 12
ROUNDS = 60


def time_first(rows: int, length: int) -> Tensor:
    return torch.randn(length, rows, HEADS, SIZE).permute(1, 2, 0, 3)


@pytest.mark.parametrize(("own", "target"), [(8, 1.5), (24, 1.5)])
def test_shared_keys_are_read_once(own: int, target: float) -> None:
    rows = PROMPTS * SAMPLES
    owner = torch.arange(PROMPTS).repeat_interleave(SAMPLES)
    query = torch.randn(rows, HEADS, 1, SIZE)
    repeated = [(time_first(rows, BEFORE + own), time_first(rows, BEFORE + own)) for _ in range(LAYERS)]
    prompts = [(time_first(PROMPTS, BEFORE), time_first(PROMPTS, BEFORE)) for _ in range(LAYERS)]
    owned = [(time_first(rows, own), time_first(rows, own)) for _ in range(LAYERS)]
    beginnings = Beginnings(prompts, None, owner)

    def attend(cache: list[tuple[Tensor, Tensor]], shared: Beginnings | None) -> float:
        started = time.perf_counter()
        for layer, (key, value) in enumerate(cache):
            decoding_attention(SimpleNamespace(layer_idx=layer), query, key, value, None, shared, scaling=0.2)
        return time.perf_counter() - started

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        times = [(attend(owned, beginnings), attend(repeated, None)) for _ in range(ROUNDS)]
    torch.set_num_threads(threads)
    ours, plain = (min(column) for column in zip(*times, strict=True))
    print(f"\n{own} own tokens: shared {ours * 1e6:,.0f} us, repeated {plain * 1e6:,.0f} us, ratio {plain / ours:.2f}")
    assert plain / ours >= target


@pytest.mark.parametrize(("rows", "heads", "group", "size"), [(96, 12, 1, 64), (384, 3, 3, 64)])
def test_large_and_shared_heads_go_through_matrix_products(
    rows: int, heads: int, group: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads of GPT-2 and of SmolLM2; 24 own tokens, the two ways in turn."""
    query, weights = torch.randn(rows, heads, group, size), torch.rand(rows, heads, group, 24)
    caches = [torch.randn(24, rows, heads, size).permute(1, 2, 0, 3) for _ in range(2 * LAYERS)]

    def attend(by_products: bool) -> float:
        monkeypatch.setattr(attention, "_by_products", lambda *_: by_products)
        started = time.perf_counter()
        for key, value in zip(caches[::2], caches[1::2], strict=True):
            attention.own_scores(query, key)
            attention.own_mixed(weights, value)
        return time.perf_counter() - started

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        times = [(attend(True), attend(False)) for _ in range(ROUNDS)]
    torch.set_num_threads(threads)
    products, sums = (min(column) for column in zip(*times, strict=True))
    each = f"{rows} rows, {heads} heads of {size}, {group} queries each"
    ways = f"products {products * 1e6 / LAYERS:,.0f} us a layer, sums {sums * 1e6 / LAYERS:,.0f}"
    print(f"\n{each}: {ways}, ratio {sums / products:.2f}")
    assert sums / products >= 1.1
