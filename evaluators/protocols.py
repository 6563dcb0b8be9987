"""Named protocols: which metric answers which question in each tradition.  All are computed from one stored generation.

What a protocol drops is the difference of n_total and n_scored of its metrics.
"""

from collections.abc import Mapping
from types import MappingProxyType

from bench.schema import Value


class Protocol(Value):
    """Quantity -> metric, and the rules that the metrics follow."""

    source: str
    metrics: Mapping[str, str]
    rules: Mapping[str, str]


def twins(metric: str) -> list[str]:
    """What each protocol counts for what this metric counts in one of them."""
    asked = [q for p in PROTOCOLS.values() for q, name in p.metrics.items() if name == metric]
    return [p.metrics[q] for p in PROTOCOLS.values() for q in asked if q in p.metrics]


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "paper": Protocol(
            source="arXiv 2211.12092, section 4 and appendix",
            metrics={
                "sentiment": "sentiment",
                "perplexity": "perplexity",
                **{f"distinct-{n}": f"distinct_{n}" for n in (1, 2, 3)},
            },
            rules={
                "text": "prompt and completion",
                "sentiment": "mean of 0.5 P(neutral) + P(positive)",
                "perplexity": "of all tokens, the prompts' too: exp of their mean NLL over all texts",
                "distinct-n": "unique n-grams / n-grams, over all completions together",
                "left out": "nothing by rule; a completion of fewer than n words has no n-gram to count",
            },
        ),
        "dexperts": Protocol(
            source="Liu et al. 2021, section 3.2 and evaluation script",
            metrics={
                "sentiment": "fraction_positive",
                "perplexity": "perplexity_dexperts",
                **{f"distinct-{n}": f"distinct_{n}_dexperts" for n in (1, 2, 3)},
            },
            rules={
                "text": "prompt and completion",
                "sentiment": "share of completions with P(positive) > P(negative)",
                "perplexity": "of each completion given its prompt: exp of its mean NLL, averaged over completions",
                "distinct-n": "unique n-grams of a prompt's completions / their words, averaged over prompts",
                "left out": "completions of perplexity 10,000 and more, and empty ones",
            },
        ),
    }
)
