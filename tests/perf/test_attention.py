"""Attention of rows that share their prompt's keys, against one batched product of single queries over all keys.

python -m pytest tests/perf/test_attention.py -s        (one thread; a quiet machine)
"""

import time
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

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
