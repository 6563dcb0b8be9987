"""A protocol names only metrics that the evaluators report, and asks the same questions as the others."""

from evaluators.distinct import Distinct
from evaluators.perplexity import Perplexity
from evaluators.protocols import PROTOCOLS
from evaluators.sentiment import Sentiment


def test_protocols_answer_the_same_questions_with_reported_metrics() -> None:
    reported = {metric.name for cls in (Sentiment, Perplexity, Distinct) for metric in cls().metrics()}
    paper, dexperts = PROTOCOLS["paper"], PROTOCOLS["dexperts"]
    assert set(paper.metrics) == set(dexperts.metrics)
    assert set(paper.metrics.values()) | set(dexperts.metrics.values()) <= reported
    assert not set(paper.metrics.values()) & set(dexperts.metrics.values())
