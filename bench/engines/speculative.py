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
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from bench.engines.drafting import best_k, ensemble_steps
from bench.engines.sampling import ATTEMPTS, NO_NUMBERS, from_step, inverse_cdf, nucleus, uniforms
from bench.engines.stream import Member, Stream
from bench.engines.transformers import TransformersModel, alike, finished_rows
from bench.schema import Recipe, Sampling
from bench.serving import NotFiniteError

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

    @property
    def fixed(self) -> bool:
        return super().fixed and self.draft.plain

    @property
    def ensemble_steps(self) -> float:
        """What a step of the ensemble is taken to cost, in steps of the draft."""
        return ensemble_steps(len(self.members), side_by_side=self.fixed and self.engine.device != "cpu")

    def _decode(
        self, prompts: list[list[int]], keys: Tensor, sampling: Sampling, end: int | None = None
    ) -> list[tuple[list[int], bool]]:
        if self.k is None:
            self.k = best_k(self.overlap(BEGINNINGS, sampling), self.ensemble_steps)
        if self.k == 0:
            return super()._decode(prompts, keys, sampling, end)
        end = self.end if end is None else end
        per_pass = max(1, ROWS // sampling.samples)
        rows: list[tuple[list[int], bool]] = []
        for start in range(0, len(prompts), per_pass):
            part = slice(start * sampling.samples, (start + per_pass) * sampling.samples)
            of, own = prompts[start : start + per_pass], keys[part].to(self.engine.device)
            if self.fixed:
                from bench.engines.static_speculative import drawn_in_blocks

                found = drawn_in_blocks(self, of, own, sampling, end)
            else:
                found = _Drawing(self, of, own, sampling, end).finish()
            rows += finished_rows(found.tokens, end)
            self.accepted += found.accepted
            self.judged += found.judged
        return rows

    @torch.inference_mode()
    def overlap(self, texts: Sequence[str], sampling: Sampling) -> float:
        prompts = [self.token_ids(text) for text in texts]
        streams = [Stream(member, max(map(len, prompts))) for member in (*self.members, self.draft)]
        hidden = [stream.prefill(prompts, self.end, self.engine.device) for stream in streams]
        logits = alike([self.target(hidden[:-1]), self.draft.head(hidden[-1]).float()])
        p, q = (distribution(z, sampling) for z in logits)
        return float(torch.minimum(p, q).sum(dim=-1).mean())

    def target(self, hidden: Sequence[Tensor]) -> Tensor:
        """The ensemble's logits (..., V) of its members' hidden states, m x (..., h)."""
        return self._mixed(self.logits(hidden))

    def drafted(self, hidden: Tensor, sampling: Sampling, keys: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """A token a row, (B,) int64, of the draft's hidden states (B, h), and what it was drawn from, (B, V).

        keys, steps: (B,) each row's key and step.  Where there are no numbers, `judge` tells.
        """
        found = distribution(self.draft.head(hidden).float()[:, : self.vocabulary], sampling)
        return draw(found, uniforms(from_step(keys, steps), 0, 0)).clamp_(max=self.vocabulary - 1), found


class Drawn(NamedTuple):
    """Rows that are done."""

    tokens: Tensor  # (B, new tokens), nothing of use behind an end token
    accepted: int
    judged: int


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
        self.keys = keys
        first = draw(distribution(model.target(hidden[:-1]), sampling), uniforms(keys, 0, 0))
        require_numbers(first, model.vocabulary)
        self.drawn = torch.full((len(repeats), sampling.max_new_tokens), end, device=device)
        self.drawn[:, 0] = first
        self.live = torch.arange(len(repeats), device=device)
        self.at = torch.ones_like(self.keys)  # tokens drawn, of live rows
        self.pending = torch.stack([first, first], dim=1)  # (B, 2): the last, which no cache holds, behind another
        self.lacks = torch.zeros_like(first, dtype=torch.bool)  # whether the draft's cache lacks that other one, too
        self._select((first != end) & (self.at < sampling.max_new_tokens))

    def finish(self) -> Drawn:
        while len(self.live):
            self._block()
        return Drawn(self.drawn, self.accepted, self.judged)

    def _block(self) -> None:
        """Draft, verify, keep: every live row gets one token at least."""
        room = (self.sampling.max_new_tokens - 1 - self.at).clamp(max=self.k)  # (B,) drafts before a row's last token
        tokens, drafted = self._drafts(int(room.max()))
        fed = torch.cat([self.pending[:, 1:], tokens], dim=1)  # (B, width + 1)
        logits = self.model.target([stream.extend(fed, torch.ones_like(fed)) for stream in self.members])
        n, following = judge(distribution(logits, self.sampling), drafted, tokens, room, self.keys, self.at)
        require_numbers(following, self.model.vocabulary)
        self.accepted += int(n.sum())
        self.judged += int(n.sum()) + int((n < room).sum())
        self._keep(fed, n, following)

    def _drafts(self, width: int) -> tuple[Tensor, Tensor]:
        """`width` tokens a row (B, width) and the distributions that they were drawn from (B, width, V)."""
        tokens = self.keys.new_empty(len(self.live), width)
        distributions = torch.empty(len(self.live), width, self.model.vocabulary, device=self.keys.device)
        feed, real = self.pending, torch.stack([self.lacks, torch.ones_like(self.lacks)], dim=1).long()
        if not self.lacks.any():
            feed, real = feed[:, 1:], real[:, 1:]
        for i in range(width):
            hidden = self.draft.extend(feed, real)[:, -1]
            drawn = self.model.drafted(hidden, self.sampling, self.keys, self.at + i)
            tokens[:, i], distributions[:, i] = drawn
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


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """What is drawn from, (..., V) float32; no numbers where the logits are none."""
    if sampling.temperature == 0:
        highest, token = logits.max(dim=-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, token, torch.where(highest.isfinite(), 1.0, torch.nan))
    return nucleus(logits / sampling.temperature, sampling.top_p)


def judge(
    ensemble: Tensor, draft: Tensor, tokens: Tensor, room: Tensor, keys: Tensor, first: Tensor
) -> tuple[Tensor, Tensor]:
    """How many of its drafted tokens each row accepts, and the token that follows them; both (B,) int64.

    ensemble: distributions (B, k + 1, V); draft: (B, k, V); tokens: (B, k); room: (B,) the drafts of a row that count;
    keys, first: (B,) each row's key and the step of its first draft.  Behind the last draft that counts the ensemble's
    own distribution is drawn from.  Where there are no numbers to draw from, the token that follows is V.
    """
    k = tokens.shape[1]
    rows = torch.arange(len(tokens), device=keys.device)
    n = torch.zeros_like(first)
    left = ensemble[:, 0]
    if k:
        steps = torch.arange(k, device=keys.device)
        u = uniforms(from_step(keys[:, None], first[:, None] + steps), 0, ACCEPTING)  # (B, k)
        p, q = (d.gather(2, tokens[..., None])[..., 0].double() for d in (ensemble[:, :k], draft))
        accepted = (u * q < p) & (steps < room[:, None])
        n = accepted.long().cumprod(dim=1).sum(dim=1)
        own = ensemble[rows, n]
        more = (own - draft[rows, n.clamp(max=k - 1)]).clamp_(min=0.0)
        some = more.sum(dim=1) != 0  # else they are equal but for rounding
        left = torch.where(((n < room) & some)[:, None], more, own)
    following = from_step(keys, first + n)
    noise = torch.where(n < room, uniforms(following, 0, REPLACING), uniforms(following, 0, 0))
    return n, draw(left, noise)


def draw(weights: Tensor, u: Tensor) -> Tensor:
    """A token a row, (B,) int64, by its random number u (B,); V where the weights (B, V) are no numbers."""
    return torch.where(weights.sum(dim=1).isfinite(), inverse_cdf(weights, u), weights.shape[1])


def require_numbers(tokens: Tensor, vocabulary: int) -> None:
    if (tokens == vocabulary).any():
        raise NotFiniteError(NO_NUMBERS)
