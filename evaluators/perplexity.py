"""Perplexity of the completions under a judge language model, in both definitions of the literature, from one pass.

Paper (arXiv 2211.12092): exp of the mean token NLL over all texts together.  DExperts (Liu et al. 2021): for each
completion exp of the mean NLL of its tokens given the prompt, then the arithmetic mean of those below a cap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Metric
from bench.stats import MedianStatistic, ScoreColumn, Summary, ratio_statistic
from evaluators.base import Judgement, ModelJudgeEvaluator, Samples, Scope
from evaluators.judges import Judge, Judges
from evaluators.packing import common_start
from evaluators.scoring import Nats, Precision, context_length, distinct_items, encode, token_nlls


class Perplexity(ModelJudgeEvaluator):
    """`perplexity`, `perplexity_dexperts` and `perplexity_median`.

    A text is the prompt and the completion, tokenised together.  Its first token is not scored, since nothing precedes
    it (a special token that the judge's tokenizer puts in front counts as that first token).  The completion's tokens
    are those after the longest common start of the text's tokens and the prompt's own: equal to DExperts' tail where
    the prompt's tokens survive, and where a token straddles the boundary it belongs to the completion.
    """

    source = "arXiv 2211.12092, appendix; Liu et al. 2021 (DExperts), section 3.2 and its evaluation script"
    model: str = Field(default="gpt2-xl", description="a packaged, local or hub causal language model")
    scope: Scope = Field(
        default="full",
        description="tokens counted in `perplexity`: of prompt and completion, or of the completion given the prompt",
    )
    cap: float | None = Field(default=1e4, gt=1, description="`perplexity_dexperts` counts completions below it")
    precision: Precision = Field(default="float32", description="bfloat16: autocast; the log-softmax stays float32")

    def metrics(self) -> tuple[Metric, ...]:
        tokens = "all tokens" if self.scope == "full" else "completion tokens"
        below = "" if self.cap is None else f" of those below {self.cap:g}"
        given = "completion given its prompt"
        return (
            self.metric("perplexity", "lower", "", f"exp of the mean NLL over {tokens} of all texts by {self.model}"),
            self.metric("perplexity_dexperts", "lower", "", f"mean{below} of the perplexity of each {given}"),
            self.metric("perplexity_median", "lower", "", f"median of the perplexity of each {given}"),
        )

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        judge = judges.language_model(self.model)
        texts = [(samples.prompts[c.prompt].text, c.text) for c in samples.completions]
        measured = measure(judge, texts, self.precision, advance)
        corpus = [m.full if self.scope == "full" else m.conditional for m in measured]
        conditional = [m.conditional for m in measured]
        corpus_name, dexperts, median = (m.name for m in self.metrics())
        summaries = [
            self._corpus(corpus_name, corpus, samples),
            self._capped(dexperts, conditional, samples),
            MedianStatistic(median, samples.prompt_of, _perplexities(conditional), len(samples.prompts)),
        ]
        scores = {corpus_name: _column(corpus, None), dexperts: _column(conditional, self.cap)}
        return Judgement(scores=scores, summaries=summaries)

    def _corpus(self, name: str, sums: "Sequence[TokenSum]", samples: Samples) -> Summary:
        nats, tokens = np.array([s.nats for s in sums]), np.array([float(s.tokens) for s in sums])
        scored = np.array([s.reason is None for s in sums], dtype=bool)
        return ratio_statistic(name, samples.prompt_of, nats, len(samples.prompts), weights=tokens, scored=scored,
                               transform="exp")  # fmt: skip

    def _capped(self, name: str, sums: "Sequence[TokenSum]", samples: Samples) -> Summary:
        values = _perplexities(sums)
        kept = np.isfinite(values) if self.cap is None else values < self.cap  # NaN, an unscored one, is below no cap
        return ratio_statistic(name, samples.prompt_of, values, len(samples.prompts), scored=kept)


@dataclass(frozen=True)
class TokenSum:
    """The summed NLL of some tokens of a text, in nats, or the reason why there is none."""

    nats: float
    tokens: int
    reason: str | None = None

    @property
    def perplexity(self) -> float | None:
        return None if self.reason is not None else math.exp(min(self.nats / self.tokens, 700))


@dataclass(frozen=True)
class Measured:
    """A text's NLL: of all its tokens, and of its completion's tokens given the prompt."""

    full: TokenSum
    conditional: TokenSum


def measure(
    judge: Judge, texts: Sequence[tuple[str, str]], precision: Precision = "float32", advance: Advance = silent
) -> list[Measured]:
    """Judge (prompt, completion) pairs, each distinct one once."""
    unique, index, counts = distinct_items(texts)
    prompts, prompt_index, _ = distinct_items([prompt for prompt, _ in unique])
    encoded = encode(judge, [*prompts, *(prompt + completion for prompt, completion in unique)])
    prompt_ids, sequences = encoded[: len(prompts)], encoded[len(prompts) :]
    starts = [common_start(prompt_ids[p], ids) for p, ids in zip(prompt_index.tolist(), sequences, strict=True)]
    limit = context_length(judge)
    readable = [row for row, ids in enumerate(sequences) if len(ids) <= limit]
    advance(int(counts.sum() - counts[readable].sum()))
    kept, times = [sequences[row] for row in readable], counts[readable].tolist()
    scored = token_nlls(judge, kept, precision=precision, advance=advance, counts=times)
    nlls = dict(zip(readable, scored, strict=True))
    too_long = f"longer than the judge's context of {limit} tokens"
    results = [
        _measured(nlls[row], starts[row], unique[row][1]) if row in nlls else _missing(too_long)
        for row in range(len(unique))
    ]
    return [results[i] for i in index.tolist()]


def _measured(nll: Nats, start: int, completion: str) -> Measured:
    """`nll[i]` belongs to token i + 1; the completion's tokens are those from `start` on."""
    tail = nll[max(start - 1, 0) :]
    full = _token_sum(nll, "a text of one token: nothing precedes it")
    nothing = "no completion token can be scored" if completion else "empty completion"
    return Measured(full, _token_sum(tail, nothing))


def _token_sum(nll: Nats, nothing: str) -> TokenSum:
    if nll.size == 0:
        return TokenSum(0.0, 0, nothing)
    if not np.isfinite(nll).all():
        return TokenSum(0.0, 0, "the judge gave a probability that is not finite")
    return TokenSum(float(nll.sum()), int(nll.size))


def _missing(reason: str) -> Measured:
    return Measured(TokenSum(0.0, 0, reason), TokenSum(0.0, 0, reason))


def _perplexities(sums: Sequence[TokenSum]) -> NDArray[np.float64]:
    """(N,) with NaN where a completion could not be scored."""
    return np.array([np.nan if (value := s.perplexity) is None else value for s in sums], dtype=np.float64)


def _column(sums: Sequence[TokenSum], cap: float | None) -> ScoreColumn:
    """Each completion's perplexity; one that the cap leaves out of the mean keeps its value and says so."""
    values = [s.perplexity for s in sums]
    reasons = {i: s.reason for i, s in enumerate(sums) if s.reason is not None}
    if cap is not None:
        above = f"not below the cap of {cap:g}: left out of the mean"
        reasons |= {i: above for i, value in enumerate(values) if value is not None and value >= cap}
    return ScoreColumn(values, reasons)
