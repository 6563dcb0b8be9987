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

from bench.engines.sampling import NO_NUMBERS, uniforms
from bench.engines.speculative import Drawn, SpeculativeModel, distribution, draw, judge, require_numbers
from bench.engines.static import Beside, FixedLayer, FixedStream, Shape, captured, shape_for, summed, with_spare
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
    first = draw(distribution(model.target(hidden[:-1]), sampling)[prompt], uniforms(keys, 0, 0))
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
            _, self.graph = captured(self._kernels)

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
        real = len(keys)
        prompt, pending, keys = with_spare([prompt, pending, keys], len(self.keys))
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
        drafts: list[tuple[Tensor, Tensor]] = []
        feed, number = self.pending, self.at - 2
        for i in range(self.k):
            hidden = self.streams[-1].read(feed, number, self.new)[:, -1]
            drafts.append(self.model.drafted(hidden, self.sampling, self.keys, self.at + i))
            feed, number = drafts[-1][0][:, None], self.at + i
        tokens, distributions = (torch.stack(parts, dim=1) for parts in zip(*drafts, strict=True))
        return tokens, distributions


class PlacedLayer(FixedLayer):
    """Each row has places of its own, (B, Q)."""

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        for kept, new in ((self.keys, keys), (self.values, values)):
            kept.scatter_(2, self.places[:, None, :, None].expand_as(new), new)
        return self.keys, self.values


class PlacedStream(FixedStream):
    """The n-th token of a completion has its place behind the prompt, so what was rejected is written over."""

    layer = PlacedLayer
    behind = True  # a token's own number hides what lies behind it

    def read(self, tokens: Tensor, first: Tensor, new: Tensor) -> Tensor:
        """Read tokens (B, Q), the first (B,) of which has that number; returns hidden states (B, Q, h).

        -1 is the prompt's last token.  A token sees the prompt and those of lower numbers; from `new` (1,) on they
        count for nothing, and may be beyond the model's positions.
        """
        numbers = first[:, None] + torch.arange(tokens.shape[1], device=tokens.device)  # (B, Q)
        places = self.place + numbers
        seen = torch.arange(self.mask.shape[-1], device=tokens.device) <= places[:, None, :, None]
        for layer in self.layers:
            layer.places = places
        outputs = self.model(
            input_ids=tokens, position_ids=(self.lengths[:, None] + numbers.minimum(new - 1)).clamp(min=0),
            attention_mask=seen & self.mask, past_key_values=self.cache, use_cache=True,
        )  # fmt: skip
        hidden: Tensor = outputs.last_hidden_state
        return hidden
