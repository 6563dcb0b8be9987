"""Attention of rows that decode one token at a time; on a CPU many of them continue the same prompt.

A row's query meets the keys of its prompt, which stand once for all rows that continue it and are read in one matrix
product (shared-prefix attention: Juravsky et al. 2024, arXiv 2402.05099, section 3), and the keys of its own tokens,
which nothing shares: a stream through memory, which plain products and sums read faster than a batched matrix product
where heads are small and each has keys of its own (docs/SPEED.md).  One softmax goes over both.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

FEW = 8  # queries a row for which torch's own attention takes twice as long
LARGE = 64  # size of heads from which on matrix products read a row's own keys faster
AT_ONCE = 2**19  # products of queries and keys: 2 MiB, so that their sums find them in cache
ALL_SEEN = torch.ones(1, 1, 1, 1, dtype=torch.bool)  # this very mask stands for none: transformers then makes none


class Beginnings:
    """The prompts' keys and values in every layer, and which prompt each row continues."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], real: Tensor | None, owner: Tensor) -> None:
        """layers: keys (P, K, T, d) and values (P, K, T, e), K the key-value heads; real: (P, T) which places hold
        tokens, None where all do; owner: (B,) int64.
        """
        self.n_prompts = len(layers[0][0])
        self.keys = [keys.transpose(2, 3).flatten(0, 1).contiguous() for keys, _ in layers]  # (P K, d, T)
        self.values = [values.flatten(0, 1).contiguous() for _, values in layers]  # (P K, T, e)
        self.padding = None if real is None else (real == 0)[:, None, None]  # (P, 1, 1, T)
        self.owner = owner
        self._arrange()

    def select(self, rows: Tensor) -> None:
        self.owner = self.owner[rows]
        self._arrange()

    def _arrange(self) -> None:
        """Each row gets a seat at its prompt; a prompt has as many as the one with most rows needs."""
        order = self.owner.argsort(stable=True)
        counts = self.owner.bincount(minlength=self.n_prompts)
        rank = torch.empty_like(self.owner)
        rank[order] = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[self.owner[order]]
        self.seats = int(counts.max())
        self.seat = self.owner * self.seats + rank  # (B,)
        self.full = torch.equal(self.seat, torch.arange(self.n_prompts * self.seats, device=order.device))

    def scores(self, layer: int, query: Tensor) -> Tensor:
        """(B, K, G, T) of queries (B, K, G, d), G the query heads of a key-value head; -inf at padding."""
        found = torch.bmm(self._seated(query), self.keys[layer])  # (P K, seats G, T)
        if self.padding is not None:
            found.view(self.n_prompts, -1, *found.shape[1:]).masked_fill_(self.padding, -torch.inf)
        return self._rows(found, query.shape[1], query.shape[2])

    def mixed(self, layer: int, weights: Tensor) -> Tensor:
        """(B, K, G, e) of weights (B, K, G, T)."""
        found = torch.bmm(self._seated(weights), self.values[layer])
        return self._rows(found, weights.shape[1], weights.shape[2])

    def _seated(self, x: Tensor) -> Tensor:
        """(P K, seats G, n) of (B, K, G, n); nobody's seats hold zeros."""
        _, heads, group, n = x.shape
        if not self.full:
            x = x.new_zeros(self.n_prompts * self.seats, heads, group, n).index_copy_(0, self.seat, x)
        seated = x.reshape(self.n_prompts, self.seats, heads, group, n).transpose(1, 2)
        return seated.reshape(self.n_prompts * heads, self.seats * group, n)

    def _rows(self, seated: Tensor, heads: int, group: int) -> Tensor:
        """(B, K, G, n) of (P K, seats G, n)."""
        n = seated.shape[-1]
        rows = seated.view(self.n_prompts, heads, self.seats, group, n).transpose(1, 2)
        rows = rows.reshape(self.n_prompts * self.seats, heads, group, n)
        return rows if self.full else rows[self.seat]


def decoding_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    beginnings: Beginnings | None = None,
    last_place: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention, quicker for a few queries a row on a CPU; single ones of rows with `beginnings` look
    there as well.  last_place: (1,) int64, behind which the mask leaves nothing.

    query: (B, H, Q, d); key: (B, K, T, d); value: (B, K, T, e); attention_mask: (B, 1, Q, T) bool.
    Returns (B, Q, H, e).
    """
    batch, heads, queries, size = query.shape
    attention_mask = None if attention_mask is ALL_SEEN else attention_mask
    masked = queries == 1 or attention_mask is not None  # else the causal mask is to be made
    if query.is_cuda and queries <= FEW and attention_mask is not None and key.shape[-1] == value.shape[-1]:
        from bench.engines.gpu_attention import attend

        return attend(query, key, value, attention_mask, options.get("scaling") or size**-0.5, last_place), None
    few = batch * queries > 1 and queries <= FEW and masked and query.device.type == "cpu"
    if beginnings is None and not few:
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return attended
    scaling = options.get("scaling") or size**-0.5
    grouped = (query * scaling).reshape(batch, key.shape[1], -1, size)  # (B, K, G Q, d)
    if beginnings is None:
        scores = torch.bmm(grouped.flatten(0, 1), key.flatten(0, 1).transpose(1, 2))  # (B K, G Q, T)
        if attention_mask is not None:
            lowest = torch.finfo(scores.dtype).min  # not -inf: a query at padding sees nothing, and stays finite
            scores.view(batch, heads, queries, -1).masked_fill_(~attention_mask, lowest)
        mixed = torch.bmm(scores.softmax(dim=-1), value.flatten(0, 1))
    else:
        before = beginnings.scores(module.layer_idx, grouped)
        weights = torch.cat([before, own_scores(grouped, key)], dim=-1).softmax(dim=-1)
        mixed = beginnings.mixed(module.layer_idx, weights[..., : before.shape[-1]])
        mixed += own_mixed(weights[..., before.shape[-1] :], value)
    return mixed.view(batch, heads, queries, value.shape[-1]).transpose(1, 2), None


def own_scores(query: Tensor, key: Tensor) -> Tensor:
    """(B, K, G, T): each row's queries (B, K, G, d) times its keys (B, K, T, d), which lie with time first."""
    if _by_products(query.shape[2], query.shape[3]):
        return torch.bmm(query.flatten(0, 1), _time_first(key).permute(1, 2, 0)).view(*query.shape[:3], -1)
    keys, parts = key.permute(2, 0, 1, 3)[:, :, :, None], []  # (T, B, K, 1, d)
    for rows in _pieces(len(query), key.shape[2] * query[0].numel()):
        parts.append((keys[:, rows] * query[rows]).sum(dim=-1).permute(1, 2, 3, 0))
    return torch.cat(parts)


def own_mixed(weights: Tensor, value: Tensor) -> Tensor:
    """(B, K, G, e): each row's values (B, K, T, e), which lie with time first, weighted by (B, K, G, T)."""
    if _by_products(weights.shape[2], value.shape[3]):
        mixed = torch.bmm(weights.flatten(0, 1), _time_first(value).transpose(0, 1))
        return mixed.view(*weights.shape[:3], -1)
    mixed = value.new_zeros(*weights.shape[:3], value.shape[3])
    over_time = value.permute(2, 0, 1, 3)[:, :, :, None], weights.permute(3, 0, 1, 2)[..., None]
    for now, weight in zip(*over_time, strict=True):  # (B, K, 1, e), (B, K, G, 1)
        mixed.addcmul_(now, weight)
    return mixed


def _by_products(group: int, size: int) -> bool:
    """Whether matrix products are faster: several queries share a head's keys, or heads are large."""
    return group > 1 or size >= LARGE


def _time_first(x: Tensor) -> Tensor:
    """(T, B K, d) of (B, K, T, d) that lies so."""
    return x.permute(2, 0, 1, 3).flatten(1, 2)


def _pieces(rows: int, each: int) -> list[slice]:
    """Rows of `each` products, as many as are made at once."""
    at_once = max(1, AT_ONCE // each)
    return [slice(start, start + at_once) for start in range(0, rows, at_once)]


ATTENTION = "lerpbench_decoding"
ALL_ATTENTION_FUNCTIONS.register(ATTENTION, decoding_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)
