"""One member of a mixture on its way through a batch: prompts run once, then each row continues one by tokens."""

from collections.abc import Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from bench.engines.attention import ALL_SEEN, ATTENTION, Beginnings
from bench.schema import UserError
from bench.suite.checkpoints import Checkpoint
from bench.suite.heads import Head


class Member(NamedTuple):
    """A model that runs at every step, and the tokens it reads before every prompt."""

    coefficient: float
    model: Any
    head: Head
    plain: bool  # whether each token sees all before it through our attention: see `require_decodable`
    prefix: Sequence[int] = ()


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """A layer of key-value cache with room for all tokens to come, so that a step copies nothing but its own token.

    Time comes first in memory: a step writes one block, and attention streams through all rows' keys.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0
        self.buffers: list[Tensor] = []  # keys and values, (B, heads, capacity, head size)

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append (B, heads, T, head size); returns all keys and values so far, (B, heads, length, head size)."""
        if not self.buffers:
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
            self.buffers = [self._room(new, len(new)) for new in (keys, values)]
        for buffer, new in zip(self.buffers, (keys, values), strict=True):
            buffer.narrow(2, self.length, new.shape[2]).copy_(new)
        self.forget(self.length + keys.shape[2])
        return self.keys, self.values

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        kept = [self._room(buffer, len(rows)) for buffer in self.buffers]
        for target, buffer in zip(kept, self.buffers, strict=True):
            now, then = (x.narrow(2, 0, self.length).permute(2, 0, 1, 3) for x in (buffer, target))
            torch.index_select(now, 1, rows, out=then)
        self.buffers = kept
        self.forget(self.length)

    def get_seq_length(self) -> int:
        return self.length

    def forget(self, length: int) -> None:
        """Drop all tokens from this place on."""
        self.length = length
        if self.buffers:
            self.keys, self.values = (buffer.narrow(2, 0, length) for buffer in self.buffers)

    def _room(self, like: Tensor, rows: int) -> Tensor:
        _, heads, _, size = like.shape
        return like.new_empty(self.capacity, rows, heads, size).permute(1, 2, 0, 3)


class Stream:
    """One member's key-value cache and positions."""

    def __init__(self, member: Member, capacity: int) -> None:
        """`capacity`: the most tokens of a row, its prompt among them and the member's prefix not."""
        self.model = member.model.base_model
        self.plain = member.plain
        self.shares = self.plain and member.model.device.type == "cpu"  # whether rows share their prompt's keys
        self.positioned = takes_positions(self.model)  # else the mask tells them
        self.prefix = list(member.prefix)
        self.capacity = capacity + len(self.prefix)
        self.cache = self._empty(self.capacity)
        self.beginnings: Beginnings | None = None  # the prompts, where rows share them: the cache then lacks them
        self.mask: Tensor | None = None  # (B, capacity) which places hold real tokens; None where all do
        self.lengths = torch.empty(0)
        self.filled = 0

    def prefill(self, prompts: Sequence[list[int]], fill: int, device: str) -> Tensor:
        """Run the prompts behind the prefix.  Returns the last position's hidden states (P, h)."""
        rows = [self.prefix + row for row in prompts]
        ids, mask = left_padded(rows, max(map(len, rows)), fill, device)  # (P, T)
        self.lengths = torch.full((len(ids),), ids.shape[1], device=ids.device) if mask is None else mask.sum(dim=1)
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        if mask is not None:
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            self.mask = torch.cat([mask, mask.new_ones(len(ids), self.capacity - ids.shape[1])], dim=1)
        self.filled = ids.shape[1]
        return self._hidden(ids, positions)[:, -1]

    def fork(self, prompts: Tensor) -> None:
        """From now on the rows are continuations of these prompts, (B,) int64, one for each time a prompt is named."""
        if not self.shares or len(prompts) == len(self.lengths):
            self.select(prompts)
            return
        real = None if self.mask is None else self.mask[:, : self.filled]
        self.beginnings = Beginnings([(layer.keys, layer.values) for layer in self.cache.layers], real, prompts)
        self.cache, self.mask = self._empty(self.capacity - self.filled), None
        self.lengths = self.lengths[prompts]

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token per row, (B,) int64.  Returns hidden states (B, h)."""
        self.filled += 1
        positions = self.lengths[:, None]
        self.lengths = self.lengths + 1
        return self._hidden(tokens[:, None], positions)[:, -1]

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        for layer in self.cache.layers:
            layer.select(rows)
        if self.beginnings is not None:
            self.beginnings.select(rows)
        self.lengths = self.lengths[rows]
        self.mask = None if self.mask is None else self.mask[rows]

    def _hidden(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Run (B, T) tokens at these positions.  Returns hidden states (B, T, h)."""
        mask = None if self.mask is None else self.mask[:, : self.filled]
        if self.plain and ids.shape[1] == 1:  # as transformers would make it, which takes 5 % of a short step
            mask = ALL_SEEN if mask is None else mask[:, None, None].bool()
        more: dict[str, Any] = {"position_ids": positions} if self.positioned else {}
        if self.beginnings is not None:
            more["beginnings"] = self.beginnings
        outputs = self.model(input_ids=ids, attention_mask=mask, past_key_values=self.cache, use_cache=True, **more)
        hidden: Tensor = outputs.last_hidden_state
        return hidden

    def _empty(self, capacity: int) -> Cache:
        layers: list[Any] = [PreallocatedLayer(capacity) for _ in range(self.model.config.num_hidden_layers)]
        return Cache(layers=layers)


def takes_positions(model: Any) -> bool:
    return "position_ids" in signature(model.forward).parameters


def require_decodable(model: Any, head: Head, checkpoint: Checkpoint) -> bool:
    """Whether each token sees all before it through our attention, which is tried: no list of architectures is needed.

    Rows may then share their prompt's keys (`Beginnings`), or be stepped at fixed places (`bench.engines.static`).

    Raises UserError where tokens decoded one by one, behind padding, are not those of a text read at once.
    """
    if _may_be_plain(model) and not _failure(model, head, plain=True):
        return True
    reason = _failure(model, head, plain=False)
    if reason:
        what = f"{model.config.model_type} cannot be decoded row by row with a cache ({reason})"
        raise UserError(f"checkpoint {checkpoint.source}: {what}; the vllm engine may serve it")
    return False


def _may_be_plain(model: Any) -> bool:
    """Where attention is ours and every layer sees all tokens before: a short trial shows no window."""
    ours = model.config._attn_implementation == ATTENTION
    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
    return ours and plain and takes_positions(model.base_model)


@torch.inference_mode()
def _failure(model: Any, head: Head, plain: bool) -> str:
    """What is wrong with texts that are decoded behind prompts of different lengths; empty where nothing is."""
    text = [1, 2, 3, 1]
    device = str(model.device)
    try:
        stream = Stream(Member(1.0, model, head, plain), 2 * len(text))
        stream.prefill([text[:2], 2 * text[:2]], 0, device)
        stream.fork(torch.tensor([1, 0, 1], device=device))
        for token in text[2:]:
            decoded = stream.step(torch.tensor([token] * 3, device=device))[1].float()
        read = model.base_model(input_ids=torch.tensor([text], device=device), use_cache=False).last_hidden_state[0, -1]
        slack = 1e-3 if read.dtype == torch.float32 else 0.1
        return "" if (decoded - read.float()).norm() <= slack * read.float().norm() else "padding changes its answers"
    except Exception as error:  # each architecture fails in its own way
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def left_padded(rows: list[list[int]], length: int, fill: int, device: str) -> tuple[Tensor, Tensor | None]:
    """Ids (B, T) int64 and their mask (B, T) int64, None where no row is shorter than T."""
    ids = torch.tensor([[fill] * (length - len(row)) + row for row in rows], device=device)
    if all(len(row) == length for row in rows):
        return ids, None
    return ids, torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=device)


def right_padded(rows: list[list[int]], fill: int, device: str) -> Tensor:
    """Ids (B, T) int64."""
    length = max(1, *map(len, rows)) if rows else 1
    return torch.tensor([row + [fill] * (length - len(row)) for row in rows], device=device)
