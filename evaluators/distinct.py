"""Diversity of the completions: distinct-n, the share of n-grams that are unique (n = 1, 2, 3), in two definitions.

Corpus: unique n-grams / n-grams over all completions.  DExperts (Liu et al. 2021, its evaluation script): for each
prompt unique n-grams of its completions / number of unigrams; the mean over prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Estimate, Metric
from bench.stats import Counts, Floats, RatioStatistic, bootstrap_ratios, interval, ratio_statistic
from evaluators.base import Judgement, Samples, Scope, TextEvaluator
from evaluators.judges import Judges

ORDERS = (1, 2, 3)


class Distinct(TextEvaluator):
    """`distinct_1..3` over the corpus and `distinct_1..3_dexperts` per prompt.

    Words are what whitespace separates; the DExperts definition splits at single spaces, as its script does, so that
    the space before a completion opens it with an empty word.
    """

    source = "Li et al. 2016 (distinct-n); Liu et al. 2021 (DExperts), section 3.2 and its evaluation script"
    scope: Scope = Field(default="completion", description="count the completion alone, or prompt + completion")

    def metrics(self) -> tuple[Metric, ...]:
        shared = "unique {0}-grams / {0}-grams"
        alone = "unique {}-grams per prompt over the number of words, mean over prompts"
        return (
            *(self.metric(f"distinct_{n}", "higher", "share", shared.format(n)) for n in ORDERS),
            *(self.metric(f"distinct_{n}_dexperts", "higher", "share", alone.format(n)) for n in ORDERS),
        )

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        texts = samples.texts(self.scope)
        words, spaced = [text.split() for text in texts], [text.split(" ") for text in texts]
        corpus = [corpus_distinct(self.named(f"distinct_{n}"), words, samples, n) for n in ORDERS]
        per_prompt = [prompt_distinct(self.named(f"distinct_{n}_dexperts"), spaced, samples, n) for n in ORDERS]
        advance(len(samples))
        return Judgement(summaries=[*corpus, *per_prompt])


def n_grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


@dataclass(frozen=True)
class UniqueShare:
    """Unique things / things, over any subset of prompts: a ratio that does not add up over prompts.

    `prompt`, `thing`: (M,) each thing of each prompt once; `counts` (P,) how many things a prompt has, repetitions
    included.  The interval linearises by leaving out one prompt at a time and resamples the pseudo-values over prompts:
    plain resampling would draw prompts twice and so find fewer unique things than any sample of that size.
    """

    metric: str
    prompt: Counts
    thing: Counts
    counts: Floats
    n_scored: Counts
    n_total: Counts

    def estimate(self, rows: NDArray[np.bool_], prompts: str | None) -> Estimate:
        n_scored, n_total = int(self.n_scored[rows].sum()), int(self.n_total[rows].sum())
        counts = self.counts[rows]
        if not counts.sum() > 0:
            return Estimate(metric=self.metric, prompts=prompts, value=None, n_scored=n_scored, n_total=n_total,
                            reason="no n-gram")  # fmt: skip
        unique, own = self._unique(rows)
        value = unique / counts.sum()
        low, high = interval(value + jackknife_deviations(unique, own, counts))
        return Estimate(metric=self.metric, prompts=prompts, value=float(value), low=low, high=high,
                        n_scored=n_scored, n_total=n_total)  # fmt: skip

    def _unique(self, rows: NDArray[np.bool_]) -> tuple[int, Floats]:
        """How many unique things the subset has, and how many of them each of its prompts has alone."""
        taken = rows[self.prompt]
        place = (np.cumsum(rows) - 1)[self.prompt[taken]]
        _, inverse, having = np.unique(self.thing[taken], return_inverse=True, return_counts=True)
        alone = having[inverse] == 1
        return len(having), np.bincount(place[alone], minlength=int(rows.sum())).astype(np.float64)


def jackknife_deviations(unique: int, own: Floats, counts: Floats) -> Floats:
    """Resampled deviations from the estimate U / T.

    Without prompt p the ratio is (U - own_p) / (T - counts_p); the pseudo-value is n U / T - (n - 1) times that.
    Returns resampled means of the pseudo-values about their own mean; empty where fewer than two prompts have things.
    """
    total, n = counts.sum(), len(counts)
    if n < 2 or (counts == total).any():
        return np.zeros(0)
    pseudo = n * unique / total - (n - 1) * (unique - own) / (total - counts)
    return bootstrap_ratios(pseudo - pseudo.mean(), np.ones(n))


def corpus_distinct(metric: str, words: Sequence[Sequence[str]], samples: Samples, n: int) -> UniqueShare:
    """Unique n-grams / n-grams over all completions; a completion of fewer than n words has nothing to count."""
    places: dict[tuple[str, ...], int] = {}
    found = [[places.setdefault(gram, len(places)) for gram in n_grams(w, n)] for w in words]
    lengths = np.array([len(f) for f in found], dtype=np.int64)
    n_prompts, prompt_of = len(samples.prompts), samples.prompt_of
    things = np.array([thing for f in found for thing in f], dtype=np.int64)
    pairs = np.unique(np.stack([np.repeat(prompt_of, lengths), things]), axis=1)
    return UniqueShare(
        metric=metric,
        prompt=pairs[0],
        thing=pairs[1],
        counts=np.bincount(prompt_of, lengths, n_prompts).astype(np.float64),
        n_scored=np.bincount(prompt_of[lengths > 0], minlength=n_prompts).astype(np.int64),
        n_total=np.bincount(prompt_of, minlength=n_prompts).astype(np.int64),
    )


def prompt_distinct(metric: str, words: Sequence[Sequence[str]], samples: Samples, n: int) -> RatioStatistic:
    """Unique n-grams of a prompt's completions / words of its completions; prompts are the items."""
    unique: list[set[tuple[str, ...]]] = [set() for _ in samples.prompts]
    totals = np.zeros(len(samples.prompts))
    for prompt, completion in zip(samples.prompt_of.tolist(), words, strict=True):
        unique[prompt].update(n_grams(completion, n))
        totals[prompt] += len(completion)
    having = np.flatnonzero(totals > 0)
    values = np.array([len(unique[p]) / totals[p] for p in having.tolist()])
    return ratio_statistic(metric, having, values, len(samples.prompts))
