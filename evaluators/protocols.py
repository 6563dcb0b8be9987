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
                "sentiment": "0.5 P(neutral) + P(positive), mean over completions",
                "perplexity": "over all tokens of all texts: exp of the mean NLL; drops nothing",
                "distinct-n": "unique n-grams / n-grams over all completions",
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
                "sentiment": "share of completions that are more likely positive than negative",
                "perplexity": "of each completion given its prompt, arithmetic mean; drops those of 10,000 and more",
                "distinct-n": "unique n-grams of a prompt's completions / their words, mean over prompts",
            },
        ),
    }
)
