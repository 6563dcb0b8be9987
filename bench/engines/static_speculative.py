"""Speculative ensembles on a GPU: drafting, verifying and keeping in fixed shapes, so that a block is one CUDA graph.

Each row is at a place of its own: a token's place in a cache hangs on its number in the completion alone, so what was
rejected is written over, and no stream has a state.  The host asks once a block: are all numbers finite, does a row go
on.  Tokens are those of `bench.engines.speculative`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from bench.engines.sampling import NO_NUMBERS, from_step, uniforms
from bench.engines.speculative import Drawn, SpeculativeModel, distribution, draw, judge, require_numbers
from bench.engines.static import Beside, Shape, captured, shape_for, summed
from bench.engines.stream import Stream
from bench.schema import Sampling
from bench.serving import NotFiniteError


def drawn_in_blocks(
    model: SpeculativeModel, prompts: list[list[int]], keys: Tensor, sampling: Sampling, end: int
) -> Drawn:
    """Continue each prompt by as many rows as `sampling` asks for.  keys: (B,)."""
    device, new = model.engine.device, sampling.max_new_tokens
    streams = [Stream(member, max(map(len, prompts))) for member in (*model.members, model.draft)]
    hidden = [stream.prefill(prompts, model.end, device) for stream in streams]  # (m + 1) x (P, h)
    prompt = torch.arange(len(prompts), device=device).repeat_interleave(sampling.samples)
    first = draw(distribution(model.target(hidden[:-1])[prompt], sampling), uniforms(keys, 0, 0))
    require_numbers(first, model.vocabulary)
    if new == 1:
        return Drawn(first[:, None], 0, 0)
    assert model.k is not None
    k, shape = model.k, shape_for(streams, len(keys), new, model.k)
    blocks = model.engine.loops.kept(
        ("drafted", k, sampling.temperature, sampling.top_p), streams, shape,
        lambda shape: Blocks(model, k, streams, shape, sampling),
    )  # fmt: skip
    last = torch.tensor([(row or [model.end])[-1] for row in prompts], device=device)
    blocks.start(model, streams, prompt, torch.stack([last[prompt], first], dim=1), keys, end, new)
    return blocks.finish(len(keys))


class Blocks:
    """Drafting k tokens a row and judging them, again and again."""

    def __init__(
        self, model: SpeculativeModel, k: int, streams: Sequence[Stream], shape: Shape, sampling: Sampling
    ) -> None:
        """streams: the members', the draft's behind them."""
        device, rows = model.engine.device, shape.rows
        self.model = model
        self.k = k
        self.shape = shape
        self.sampling = sampling
        self.streams = [PlacedStream(s, rows, room) for s, room in zip(streams, shape.rooms, strict=True)]
        self.nbytes = sum(stream.nbytes for stream in self.streams)
        whole = partial(torch.zeros, dtype=torch.int64, device=device)
        self.coefficients = torch.ones(len(model.members), device=device)
        self.keys, self.end, self.counts = whole(rows), whole(1), whole(2)
        self.new = torch.full_like(self.end, shape.steps)  # tokens that each row is to have, at most as many
        self.at = torch.ones_like(self.keys)  # tokens drawn
        self.pending = whole(rows, 2)  # the last two; the draft's cache may lack both
        self.drawn = whole(rows, shape.steps + k + 1)
        self.going = torch.zeros(rows, dtype=torch.bool, device=device)
        self.answers = torch.zeros(2, dtype=torch.bool, device=device)
        self.beside = Beside(len(model.members), device)
        self.graph: Any = None
        if device != "cpu":
            _, self.graph = captured(self._kernels, lambda: None)

    def start(
        self,
        model: SpeculativeModel,
        streams: Sequence[Stream],
        prompt: Tensor,
        pending: Tensor,
        keys: Tensor,
        end: int,
        new: int,
    ) -> None:
        """Take other prompts and coefficients.

        prompt: (B,) the one that a row continues; pending: (B, 2) its last token and the first of the row.  Rows that
        are too many for B are copies of the first one, and ended.
        """
        real, spare = len(keys), len(self.keys) - len(keys)
        prompt, pending, keys = (torch.cat([x, x[:1].expand(spare, *x.shape[1:])]) for x in (prompt, pending, keys))
        self.keys.copy_(keys)
        self.pending.copy_(pending)
        self.end.fill_(end)
        self.new.fill_(new)
        self.counts.zero_()
        self.at.fill_(1)
        self.drawn.fill_(end)
        self.drawn[:, 0] = pending[:, 1]
        self.going.copy_((torch.arange(len(keys), device=keys.device) < real) & (pending[:, 1] != end))
        self.coefficients.copy_(torch.tensor(model.coefficients[0]))
        for own, stream in zip(self.streams, streams, strict=True):
            own.start(stream, prompt)

    def finish(self, rows: int) -> Drawn:
        """All blocks, or as many as some row goes on."""
        going = bool(self.going.any())
        while going:
            if self.graph is None:
                self._kernels()
            else:
                self.graph.replay()
            finite, going = self.answers.tolist()
            if not finite:
                raise NotFiniteError(NO_NUMBERS)
        accepted, judged = self.counts.tolist()
        return Drawn(self.drawn[:rows, : int(self.new)], accepted, judged)

    def _kernels(self) -> None:
        """Every row that goes on gets one token at least."""
        at, vocabulary = self.at, self.model.vocabulary
        room = (self.new - 1 - at).clamp(0, self.k)  # drafts before a row's last token
        tokens, drafted = self._drafts()
        fed = torch.cat([self.pending[:, 1:], tokens], dim=1)  # (B, k + 1)
        hidden = self.beside.run([partial(stream.read, fed, at - 1, self.new) for stream in self.streams[:-1]])
        mixed = summed(self.coefficients, self.model.logits(hidden))
        n, following = judge(distribution(mixed, self.sampling), drafted, tokens, room, self.keys, at)
        steps = torch.arange(self.k + 1, device=n.device)
        found = torch.cat([tokens, following[:, None]], dim=1).scatter_(1, n[:, None], following[:, None])
        places = torch.where(self.going, at, self.shape.steps)[:, None] + steps  # of rows that have ended, behind all
        self.drawn.scatter_(1, places, found)
        self.counts += torch.stack([n, n + (n < room)], dim=1).mul_(self.going[:, None]).sum(dim=0)
        self.pending.copy_(torch.cat([fed.gather(1, n[:, None]), following[:, None]], dim=1))
        at += (n + 1) * self.going
        ended = ((found == self.end) & (steps <= n[:, None])).any(dim=1)
        self.going &= (at < self.new) & ~ended
        self.pending.clamp_(max=vocabulary - 1)
        self.answers.copy_(torch.stack([(following < vocabulary).all(), self.going.any()]))

    def _drafts(self) -> tuple[Tensor, Tensor]:
        """Tokens (B, k) and the distributions that they were drawn from (B, k, V)."""
        vocabulary, draft = self.model.vocabulary, self.streams[-1]
        tokens, distributions = [], []
        feed, number = self.pending, self.at - 2
        for i in range(self.k):
            logits = self.model.draft.head(draft.read(feed, number, self.new)[:, -1]).float()[:, :vocabulary]
            distributions.append(distribution(logits, self.sampling))
            noise = uniforms(from_step(self.keys, self.at + i), 0, 0)
            tokens.append(draw(distributions[-1], noise).clamp_(max=vocabulary - 1))  # `judge` tells
            feed, number = tokens[-1][:, None], self.at + i
        return torch.stack(tokens, dim=1), torch.stack(distributions, dim=1)


class PlacedStream:
    """A member's key-value cache, in which the n-th token of a completion has its place behind the prompt."""

    def __init__(self, stream: Stream, rows: int, room: int) -> None:
        self.model = stream.model
        device = stream.lengths.device
        self.layers = [PlacedLayer(layer.keys, layer.values, rows, room) for layer in stream.cache.layers]
        self.cache = Cache(layers=self.layers)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)  # of the prompts
        self.filled = torch.ones(1, dtype=torch.int64, device=device)  # places of the prompts
        self.real = torch.zeros(rows, 1, 1, room, dtype=torch.bool, device=device)
        self.nbytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)

    def start(self, stream: Stream, prompt: Tensor) -> None:
        """Continue the prompts (B,) of a stream that has read them."""
        self.filled.fill_(stream.filled)
        self.lengths.copy_(stream.lengths[prompt])
        self.real.fill_(True)
        if stream.mask is not None:
            self.real[..., : stream.filled] = stream.mask[prompt][:, None, None, : stream.filled].bool()
        for own, layer in zip(self.layers, stream.cache.layers, strict=True):
            own.keys[:, :, : stream.filled] = layer.keys[prompt]
            own.values[:, :, : stream.filled] = layer.values[prompt]

    def read(self, tokens: Tensor, first: Tensor, new: Tensor) -> Tensor:
        """Read tokens (B, Q), the first (B,) of which has that number; returns hidden states (B, Q, h).

        -1 is the prompt's last token.  A token sees the prompt and those of lower numbers; from `new` (1,) on they
        count for nothing, and may be beyond the model's positions.
        """
        numbers = first[:, None] + torch.arange(tokens.shape[1], device=tokens.device)  # (B, Q)
        places = self.filled + numbers
        seen = torch.arange(self.real.shape[-1], device=tokens.device) <= places[:, None, :, None]
        for layer in self.layers:
            layer.places = places
        outputs = self.model(
            input_ids=tokens, position_ids=(self.lengths[:, None] + numbers.minimum(new - 1)).clamp(min=0),
            attention_mask=seen & self.real, past_key_values=self.cache, use_cache=True,
        )  # fmt: skip
        hidden: Tensor = outputs.last_hidden_state
        return hidden


class PlacedLayer(DynamicLayer):  # type: ignore[misc]
    """A layer of it: the mask hides places that hold nothing yet, or what was rejected."""

    def __init__(self, keys: Tensor, values: Tensor, rows: int, room: int) -> None:
        """keys, values: (P, heads, T, head size), of any prompts, for their shapes."""
        super().__init__()
        self.keys, self.values = (x.new_zeros(rows, x.shape[1], room, x.shape[3]) for x in (keys, values))
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.places = torch.empty(0)

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write (B, heads, Q, head size) at the places (B, Q); returns all, (B, heads, room, head size)."""
        for kept, new in ((self.keys, keys), (self.values, values)):
            kept.scatter_(2, self.places[:, None, :, None].expand_as(new), new)
        return self.keys, self.values
