"""Speculative ensembles: one model of mixed weights drafts, the mixture of logits verifies, several tokens in one pass.

A drafted token x is accepted with probability min(1, p(x) / q(x)), p and q the truncated and renormalised distributions
of the ensemble and the draft; after the first rejection a token is drawn from the normalised positive part of p - q.
So tokens have the ensemble's distribution exactly (Leviathan, Kalman and Matias 2023, arXiv 2211.17192, section 2.3),
and how often a draft is accepted is a matter of speed alone: sum_x min(p(x), q(x)) on average.

The random number of each decision hangs on the row and the token's place, and a row's drafts end where its own
completion does, so completions do not depend on the batch.  Caches hold what was rejected until all rows reject it; a
mask hides it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.engines.drafting import best_k
from bench.engines.sampling import (
    ATTEMPTS,
    from_step,
    inverse_cdf,
    most_likely,
    nucleus,
    sample_nucleus,
    uniforms,
)
from bench.engines.stream import Member, Stream
from bench.engines.transformers import TransformersModel, alike, finished_rows
from bench.schema import Recipe, Sampling

if TYPE_CHECKING:
    from bench.engines.transformers import TransformersEngine

ROWS = 64  # decoded at once: more gain nothing from longer passes, and each holds k distributions
BEGINNINGS = (  # behind which `auto` looks, so that it does not hang on what is completed
    "The",
    "It is a",
    "In the end the",
    "I think that",
    "There are many",
    "When he",
    "We have seen",
    "This was",
)
ACCEPTING, REPLACING = ATTEMPTS - 1, ATTEMPTS - 2  # the sampler's redraws never come this far


class SpeculativeModel(TransformersModel):
    """A logits mixture that decodes with a draft; what is asked beside decoding is answered by the mixture alone."""

    def __init__(self, engine: "TransformersEngine", recipe: Recipe, members: Sequence[Member], draft: Member) -> None:
        super().__init__(engine, recipe, members)
        assert recipe.draft is not None
        self.draft = draft
        self.k = None if recipe.draft.k == "auto" else recipe.draft.k
        self.accepted = 0
        self.judged = 0  # drafted tokens up to each row's first rejection, that one included

    @property
    def acceptance(self) -> float | None:
        """The share of judged drafts that were accepted so far."""
        return self.accepted / self.judged if self.judged else None

    def _decode(
        self, prompts: list[list[int]], keys: Tensor, sampling: Sampling, end: int | None = None
    ) -> list[tuple[list[int], bool]]:
        if self.k is None:
            self.k = best_k(self.overlap(BEGINNINGS, sampling), len(self.members))
        per_pass = max(1, ROWS // sampling.samples)
        rows: list[tuple[list[int], bool]] = []
        for start in range(0, len(prompts), per_pass):
            part = slice(start * sampling.samples, (start + per_pass) * sampling.samples)
            drawing = _Drawing(self, prompts[start : start + per_pass], keys[part], sampling,
                               self.end if end is None else end)  # fmt: skip
            rows += drawing.finish()
            self.accepted += drawing.accepted
            self.judged += drawing.judged
        return rows

    @torch.inference_mode()
    def overlap(self, texts: Sequence[str], sampling: Sampling) -> float:
        prompts = [self.token_ids(text) for text in texts]
        streams = [Stream(member, max(map(len, prompts))) for member in (*self.members, self.draft)]
        hidden = [stream.prefill(prompts, self.end, self.engine.device) for stream in streams]
        logits = alike([self._mixed(self.logits(hidden[:-1])), self.draft.head(hidden[-1]).float()])
        p, q = (_distribution(z, sampling) for z in logits)
        return float(torch.minimum(p, q).sum(dim=-1).mean())


class _Drawing:
    """Rows on their way, each at a place of its own."""

    def __init__(
        self, model: SpeculativeModel, prompts: list[list[int]], keys: Tensor, sampling: Sampling, end: int
    ) -> None:
        assert model.k is not None
        device = model.engine.device
        self.model = model
        self.sampling = sampling
        self.end = end
        self.k = model.k
        self.accepted = self.judged = 0
        room = max(map(len, prompts)) + sampling.max_new_tokens * (self.k + 2)
        self.members = [_Branching(member, room) for member in model.members]
        self.draft = _Branching(model.draft, room)
        repeats = torch.arange(len(prompts), device=device).repeat_interleave(sampling.samples)
        hidden = []
        for stream in (*self.members, self.draft):
            hidden.append(stream.prefill(prompts, model.end, device)[repeats])
            stream.select(repeats)
            stream.branch(sampling.max_new_tokens)
        logits = self._target(hidden[:-1])
        self.vocabulary = logits.shape[-1]
        self.keys = keys.to(device)
        first = self._draw(logits, self.keys, torch.zeros_like(self.keys))
        self.drawn = torch.full((len(repeats), sampling.max_new_tokens), end, device=device)
        self.drawn[:, 0] = first
        self.live = torch.arange(len(repeats), device=device)
        self.at = torch.ones_like(self.keys)  # tokens drawn, of live rows
        self.pending = torch.stack([first, first], dim=1)  # (B, 2): the last, which no cache holds, behind another
        self.lacks = torch.zeros_like(first, dtype=torch.bool)  # whether the draft's cache lacks that other one, too
        self._select((first != end) & (self.at < sampling.max_new_tokens))

    def finish(self) -> list[tuple[list[int], bool]]:
        while len(self.live):
            self._block()
        return finished_rows(self.drawn, self.end)

    def _block(self) -> None:
        """Draft, verify, keep: every live row gets one token at least."""
        room = (self.sampling.max_new_tokens - 1 - self.at).clamp(max=self.k)  # (B,) drafts before a row's last token
        tokens, drafted = self._drafts(int(room.max()))
        fed = torch.cat([self.pending[:, 1:], tokens], dim=1)  # (B, width + 1)
        logits = self._target([stream.extend(fed, torch.ones_like(fed)) for stream in self.members])
        n, following = judge(_distribution(logits[:, :-1], self.sampling), drafted, tokens, room, self.keys, self.at)
        whole = (n == room).nonzero()[:, 0]  # nothing was rejected, and the next token is the ensemble's own
        following[whole] = self._draw(logits[whole, n[whole]], self.keys[whole], (self.at + n)[whole])
        self.accepted += int(n.sum())
        self.judged += int(n.sum()) + len(n) - len(whole)
        self._keep(fed, n, following)

    def _drafts(self, width: int) -> tuple[Tensor, Tensor]:
        """`width` tokens a row (B, width) and the distributions that they were drawn from (B, width, V)."""
        tokens = self.keys.new_empty(len(self.live), width)
        distributions = torch.empty(len(self.live), width, self.vocabulary, device=self.keys.device)
        feed, real = self.pending, torch.stack([self.lacks, torch.ones_like(self.lacks)], dim=1).long()
        if not self.lacks.any():
            feed, real = feed[:, 1:], real[:, 1:]
        for i in range(width):
            hidden = self.draft.extend(feed, real)[:, -1]
            logits = self.model.draft.head(hidden).float()[:, : self.vocabulary]
            distributions[:, i] = _distribution(logits, self.sampling)
            tokens[:, i] = self._draw(logits, self.keys, self.at + i)
            feed = tokens[:, i : i + 1]
            real = torch.ones_like(feed)
        return tokens, distributions

    def _keep(self, fed: Tensor, n: Tensor, following: Tensor) -> None:
        """Each row gets its n accepted tokens and the one behind them; what the caches hold beyond is forgotten."""
        width = fed.shape[1] - 1
        steps = torch.arange(width + 1, device=n.device)
        found = torch.cat([fed[:, 1:], following[:, None]], dim=1).scatter_(1, n[:, None], following[:, None])
        kept = steps <= n[:, None]  # (B, width + 1)
        places = self.at[:, None] + steps
        self.drawn[self.live[:, None].expand_as(places)[kept], places[kept]] = found[kept]
        for stream in self.members:
            stream.forget(n + 1, width + 1)
        self.draft.forget((n + 1).clamp(max=width), width)
        self.pending = torch.cat([fed.gather(1, n[:, None]), following[:, None]], dim=1)
        self.lacks = n == width
        self.at = self.at + n + 1
        self._select((self.at < self.sampling.max_new_tokens) & ~((found == self.end) & kept).any(dim=1))

    def _select(self, going: Tensor) -> None:
        """Rows that have their end, or all their tokens, are dropped at once."""
        if going.all():
            return
        kept = going.nonzero()[:, 0]
        self.live, self.at, self.keys = self.live[kept], self.at[kept], self.keys[kept]
        self.pending, self.lacks = self.pending[kept], self.lacks[kept]
        for stream in (*self.members, self.draft):
            stream.keep(kept)

    # ------------------------------------------------------------------------------------------ distributions

    def _target(self, hidden: Sequence[Tensor]) -> Tensor:
        """The ensemble's logits (..., V) of its members' hidden states, m x (..., h)."""
        return self.model._mixed(self.model.logits(hidden))

    def _draw(self, logits: Tensor, keys: Tensor, steps: Tensor) -> Tensor:
        """A token a row, (B,) int64, by the random number of its own step.  logits: (B, V), overwritten."""
        if self.sampling.temperature == 0:
            return most_likely(logits)
        return sample_nucleus(logits.div_(self.sampling.temperature), self.sampling.top_p, from_step(keys, steps), 0)


def _distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """What is drawn from, (..., V) float32."""
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    return nucleus(logits / sampling.temperature, sampling.top_p)


class _Branching(Stream):
    """A member's cache that is read ahead and then forgets: rows differ in which places they keep."""

    def branch(self, new_tokens: int) -> None:
        """Be ready for `new_tokens` a row, after the prompts."""
        every = torch.ones(len(self.lengths), self.capacity, dtype=torch.int64, device=self.lengths.device)
        self.mask = every if self.mask is None else self.mask
        self.last = self.lengths + new_tokens - 1  # (B,) the last position that a row can need

    def keep(self, rows: Tensor) -> None:
        self.select(rows)
        self.last = self.last[rows]

    def extend(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Append (B, Q) tokens, seen from then on where `real` (B, Q) is 1.  Returns hidden states (B, Q, h)."""
        assert self.mask is not None
        positions = (self.lengths[:, None] + real.cumsum(dim=1) - 1).clamp(min=0).minimum(self.last[:, None])
        start, self.filled = self.filled, self.filled + tokens.shape[1]
        self.mask[:, start : self.filled] = real
        self.lengths = self.lengths + real.sum(dim=1)
        return self._hidden(tokens, positions)

    def forget(self, kept: Tensor, of: int) -> None:
        """Of the last `of` places each row keeps the first `kept` (B,)."""
        assert self.mask is not None
        stays = torch.arange(of, device=kept.device) < kept[:, None]
        window = self.mask[:, self.filled - of : self.filled]
        self.lengths = self.lengths - (window * ~stays).sum(dim=1)
        window *= stays
        self.filled -= of - int(kept.max())
        for layer in self.cache.layers:
            layer.forget(self.filled)


def judge(
    ensemble: Tensor, draft: Tensor, tokens: Tensor, room: Tensor, keys: Tensor, first: Tensor
) -> tuple[Tensor, Tensor]:
    """How many of its drafted tokens each row accepts, and the token that follows a rejection; both (B,) int64.

    ensemble, draft: distributions (B, k, V); tokens: (B, k); room: (B,) the drafts of a row that count; keys, first:
    (B,) each row's key and the step of its first draft.  Where all that count are accepted, the second means nothing.
    """
    n_rows, k, _ = ensemble.shape
    if k == 0:
        return torch.zeros_like(first), torch.zeros_like(first)
    steps = torch.arange(k, device=keys.device)
    u = uniforms(from_step(keys[:, None], first[:, None] + steps), 0, ACCEPTING)  # (B, k)
    p, q = (d.gather(2, tokens[..., None])[..., 0].double() for d in (ensemble, draft))
    accepted = (u * q < p) & (steps < room[:, None])
    n = accepted.long().cumprod(dim=1).sum(dim=1)
    place = torch.arange(n_rows, device=keys.device), n.clamp(max=k - 1)
    left = (ensemble[place] - draft[place]).clamp_(min=0.0)
    left = torch.where(left.sum(dim=1, keepdim=True) > 0, left, ensemble[place])  # equal but for rounding
    return n, inverse_cdf(left, uniforms(from_step(keys, first + n), 0, REPLACING))
