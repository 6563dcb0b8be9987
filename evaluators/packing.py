"""Sequences as one stream of tokens, without padding, in which what several of them begin with stands only once.

Where a model is causal, a token's hidden state depends on the tokens before it alone, so the sequences of a batch form
a tree: 25 completions of a prompt are branches that grow from it.  Embeddings, projections and the head run on the
stream; attention, which is handed to transformers by name, looks up each sequence's own path through the tree.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ROWS_PER_BLOCK = {"cpu": 16, "cuda": 1024}  # sequences of about the same length that attend in one call
VECTOR = 16  # floats in a register: a CPU attends to 48 keys faster than to 38


@dataclass(frozen=True)
class Block:
    """R sequences that attend together, padded to Q queries (tokens that stand here first) and K keys (all tokens)."""

    queries: Tensor  # (R, Q) places in the stream
    keys: Tensor  # (R, K)
    visible: Tensor  # (R, 1, Q, K) bool
    real: Tensor  # (M,) which of the R x Q queries are no padding
    places: Tensor  # (M,) and where in the stream they stand


@dataclass(frozen=True)
class Packing:
    """The stream of N tokens, each with its position in its sequences; `places[i]` is sequence i's path through it."""

    ids: Tensor  # (1, N) int64
    positions: Tensor  # (1, N) int64
    places: list[NDArray[np.int64]]  # (T,) each
    blocks: list[Block]


def common_start(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def pack(sequences: Sequence[Sequence[int]], device: torch.device) -> Packing:
    """Sequences of at least one token; neighbours share what they both begin with, so they should come sorted."""
    ids: list[int] = []
    positions: list[int] = []
    places: list[NDArray[np.int64]] = []
    owns: list[int] = []
    for i, sequence in enumerate(sequences):
        shared = common_start(sequences[i - 1], sequence) if i else 0
        new = np.arange(len(ids), len(ids) + len(sequence) - shared)
        places.append(np.concatenate([places[-1][:shared], new]) if i else new)
        owns.append(len(new))
        ids.extend(sequence[shared:])
        positions.extend(range(shared, len(sequence)))
    order = sorted((i for i in range(len(places)) if owns[i]), key=lambda i: (owns[i], len(places[i])))
    rows = ROWS_PER_BLOCK[device.type]
    parts = [order[start : start + rows] for start in range(0, len(order), rows)]
    blocks = [_block([places[i] for i in part], [owns[i] for i in part], device) for part in parts]
    return Packing(torch.tensor([ids], device=device), torch.tensor([positions], device=device), places, blocks)


def _block(paths: Sequence[NDArray[np.int64]], owns: Sequence[int], device: torch.device) -> Block:
    """The last `owns[i]` tokens of each path are its queries; padding looks at the stream's first token."""
    own, length = np.array(owns)[:, None], np.array([len(path) for path in paths])[:, None]
    queries = np.zeros((len(paths), max(owns)), dtype=np.int64)
    keys = np.zeros((len(paths), -(-int(length.max()) // VECTOR) * VECTOR), dtype=np.int64)
    for row, path in enumerate(paths):
        queries[row, : owns[row]] = path[len(path) - owns[row] :]
        keys[row, : len(path)] = path
    at = length - own + np.arange(queries.shape[1])  # (R, Q) each query's position
    visible = np.arange(keys.shape[1]) <= at[..., None]
    real = np.flatnonzero(np.arange(queries.shape[1]) < own)
    arrays = queries, keys, visible[:, None], real, queries.ravel()[real]
    return Block(*(torch.from_numpy(array).to(device) for array in arrays))


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, _: Tensor | None, packing: Packing, **options: Any
) -> tuple[Tensor, None]:
    """Attention of a stream, block by block.  query, key, value: (1, heads, N, d).  Returns (1, N, heads, d)."""
    stream = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]  # (N, heads, d)
    attended = query.new_empty((query.shape[2], query.shape[1], value.shape[3]))
    for block in packing.blocks:
        picked = zip(stream, (block.queries, block.keys, block.keys), strict=True)
        found, _ = sdpa_attention_forward(
            module, *(tensor[places].transpose(1, 2) for tensor, places in picked), block.visible, **options
        )  # (R, Q, heads, d)
        attended[block.places] = found.flatten(0, 1)[block.real]
    return attended[None], None


ATTENTION = "lerpbench_packed"
ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Within it the model takes streams (see `packed_states`) and nothing else."""
    usual = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def packed_states(model: Any, packing: Packing) -> Tensor:
    """(N, D) last hidden states of a stream, within `packed_attention`."""
    output = model.base_model(input_ids=packing.ids, position_ids=packing.positions, use_cache=False, packing=packing)
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


@torch.inference_mode()
def packs(model: Any) -> bool:
    """Whether streams give this model's hidden states: tried, so that no list of architectures is needed.

    It must be causal and take positions and an attention by name; that every layer sees everything before a token (no
    sliding window, no recurrent state) is asked of its cache, since a short trial would not show it.
    """
    layers = DynamicCache(config=model.config).layers
    plain = all(type(layer) is DynamicLayer for layer in layers)
    if not plain or not model.is_backend_compatible() or model.config._attn_implementation != "sdpa":
        return False
    sequences = [[token % model.config.vocab_size for token in ids] for ids in ([1, 2, 3, 4], [1, 2, 5], [6, 7])]
    packing = pack(sequences, model.device)
    expected = [
        model.base_model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).last_hidden_state[0]
        for ids in sequences
    ]
    try:
        with packed_attention(model):
            found = packed_states(model, packing)
    except Exception:  # a model's own code, which may fail in any way where it is given what it does not know
        return False
    return all(
        torch.allclose(found[torch.from_numpy(places)], hidden, rtol=1e-3, atol=1e-4)
        for places, hidden in zip(packing.places, expected, strict=True)
    )
