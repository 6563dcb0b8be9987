"""Samples from plain texts."""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.schema import Completion, Estimate, Prompt
from evaluators.base import Judgement, Samples


def samples(texts: Mapping[str, Sequence[str]]) -> Samples:
    """Prompt text -> texts of its completions."""
    prompts = [Prompt(set="set", row=row, text=text) for row, text in enumerate(texts)]
    completions = [
        Completion(row, sample, text, len(text.split()), "length")
        for row, group in enumerate(texts.values())
        for sample, text in enumerate(group)
    ]
    return Samples(prompts, completions)


def estimates(judgement: Judgement, n_rows: int) -> dict[str, Estimate]:
    """Metric -> its estimate over all rows."""
    rows = np.ones(n_rows, dtype=bool)
    return {s.metric: s.estimate(rows, None) for s in judgement.summaries} | {e.metric: e for e in judgement.estimates}
