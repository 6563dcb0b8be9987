"""What the leaderboard calls metrics."""

DIVERGENCE = "kl_to_base"  # how far any mixture has moved, whatever its method's parameter means

TITLES = {
    "perplexity_dexperts": "Perplexity, as in DExperts",
    "perplexity_median": "Perplexity, median",
    "distinct_1": "Distinct-1",
    "distinct_2": "Distinct-2",
    "distinct_3": "Distinct-3",
    "distinct_1_dexperts": "Distinct-1, as in DExperts",
    "distinct_2_dexperts": "Distinct-2, as in DExperts",
    "distinct_3_dexperts": "Distinct-3, as in DExperts",
    "nll_positive": "NLL of positive sentences",
    "nll_negative": "NLL of negative sentences",
    "kl_weights_logits": "KL, weights from logits",
    "nucleus_overlap": "Nucleus overlap",
    DIVERGENCE: "KL to the base",
}


def title(metric: str) -> str:
    """`fraction_positive` is Fraction positive, unless it has a title of its own."""
    return TITLES.get(metric) or (metric if "[" in metric else metric[:1].upper() + metric[1:].replace("_", " "))


def family(metric: str) -> str:
    """`next_token[great]` belongs to next_token; a plain metric to itself."""
    return metric.split("[", 1)[0] if metric.endswith("]") else metric


def item(metric: str) -> str:
    return metric.split("[", 1)[1][:-1] if metric.endswith("]") else metric
