"""Evaluators by name; a third party adds its own through the entry point group `lerpbench.evaluators`."""

from bench.registry import Registry
from evaluators.base import Evaluator

TABLE = {
    "sentiment": "evaluators.sentiment:Sentiment",
    "acceptability": "evaluators.acceptability:Acceptability",
    "perplexity": "evaluators.perplexity:Perplexity",
    "classifier": "evaluators.classifier:Classifier",
    "toxicity": "evaluators.toxicity:Toxicity",
    "llm_judge": "evaluators.llm_judge:LlmJudge",
    "zero_shot": "evaluators.zero_shot:ZeroShot",
    "distinct": "evaluators.distinct:Distinct",
    "repetition": "evaluators.repetition:Repetition",
    "length": "evaluators.length:Length",
    "nll": "evaluators.nll:SentenceNLL",
    "next_token": "evaluators.next_token:NextToken",
    "linearity": "evaluators.linearity:Linearity",
    "kl_to_base": "evaluators.kl_to_base:KlToBase",
    "weight_distance": "evaluators.weight_distance:WeightDistance",
    "huggingface": "evaluators.huggingface:HuggingFace",
}


def registry() -> Registry[Evaluator]:
    """The registry of evaluators, plugins included."""
    return Registry("evaluator", Evaluator, TABLE, "lerpbench.evaluators")
