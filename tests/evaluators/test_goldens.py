"""What judges and probes report, by hand: on models whose probabilities are known and the same after every text.

The last layer norm of each has weight 0 and bias e_0, so every hidden state is e_0 and the logits are the head's first
column: the logarithms of the wanted probabilities.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from evaluator_samples import estimates, samples
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2TokenizerFast

from bench.engines.transformers import TransformersEngine
from bench.schema import PromptSource, Recipe
from bench.serving import ServedModel
from bench.suite.checkpoints import resolve
from evaluators.acceptability import Acceptability
from evaluators.classifier import Classifier
from evaluators.judges import Judges
from evaluators.next_token import NextToken
from evaluators.nll import SentenceNLL
from evaluators.perplexity import Perplexity
from evaluators.sentiment import Sentiment
from tests.conftest import tiny_config

TEXTS = {" good": [" good good bad", " bad", " good"]}


@torch.no_grad()
def fix(norm: torch.nn.LayerNorm, head: torch.Tensor, probabilities: Sequence[float]) -> None:
    norm.weight.zero_()
    norm.bias.zero_()[0] = 1
    head[:, 0] = torch.tensor(probabilities).log()


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: GPT2TokenizerFast) -> Path:
    """P(" good") = 1/2, P(" bad") = 1/4; all other tokens share the last quarter."""
    model = GPT2LMHeadModel(tiny_config(len(tiny_tokenizer)))
    probabilities = [0.25 / (len(tiny_tokenizer) - 2)] * len(tiny_tokenizer)
    for word, p in ((" good", 0.5), (" bad", 0.25)):
        (token,) = tiny_tokenizer(word)["input_ids"]
        probabilities[token] = p
    fix(model.transformer.ln_f, model.lm_head.weight, probabilities)
    folder = tmp_path_factory.mktemp("unigram")
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def served(language_model: Path) -> ServedModel:
    engine = TransformersEngine({"base": resolve(str(language_model))}, "float32", "cpu")
    return engine.serve(Recipe(space="weights", coefficients={"base": 1}))


def classifier(folder: Path, tokenizer: GPT2TokenizerFast, probabilities: dict[str, float]) -> str:
    labels = {"id2label": dict(enumerate(probabilities)), "label2id": {n: i for i, n in enumerate(probabilities)}}
    model = GPT2ForSequenceClassification(tiny_config(len(tokenizer), num_labels=len(probabilities), **labels))
    fix(model.transformer.ln_f, model.score.weight, list(probabilities.values()))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_perplexity(language_model: Path) -> None:
    """The first token, the prompt, is not scored.  Nats: 2 ln 2 + ln 4 over 3 tokens, ln 4 over 1, ln 2 over 1.

    All texts: exp(7 ln 2 / 5) = 2^1.4.  Each: 2^(4/3) = 2.519842, 4, 2: mean 2.839947, median 2.519842.
    """
    found = estimates(Perplexity(model=str(language_model)).judge(samples(TEXTS), Judges()), 1)
    assert found["perplexity"].value == pytest.approx(2.639016, rel=1e-5)
    assert found["perplexity_dexperts"].value == pytest.approx(2.839947, rel=1e-5)
    assert found["perplexity_median"].value == pytest.approx(2.519842, rel=1e-5)


def test_nll(served: ServedModel, tmp_path: Path) -> None:
    """(ln 2 + ln 4) + ln 2 over 2 + 1 tokens: every token counts, after the end-of-text token."""
    (tmp_path / "s.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (" good bad", " good")))
    judged = SentenceNLL(sets={"mine": PromptSource(source=str(tmp_path / "s.jsonl"))}).probe(served)
    assert estimates(judged, 2)["nll_mine"].value == pytest.approx(4 / 3 * math.log(2), rel=1e-5)


def test_next_token(served: ServedModel) -> None:
    """1/2, 1/4, and their product for two tokens in a row."""
    found = estimates(NextToken(words=("good", "bad", "good bad")).probe(served), 0)
    values = [found[f"next_token[{word}]"].value for word in ("good", "bad", "good bad")]
    assert values == pytest.approx([1 / 2, 1 / 4, 1 / 8], rel=1e-5)


@pytest.mark.parametrize(
    ("negative", "neutral", "positive", "sentiment", "fraction"),
    [(0.2, 0.3, 0.5, 0.5 * 0.3 + 0.5, 1.0), (0.6, 0.1, 0.3, 0.5 * 0.1 + 0.3, 0.0)],
)
def test_sentiment(
    tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast, negative: float, neutral: float, positive: float,
    sentiment: float, fraction: float,
) -> None:  # fmt: skip
    named = {"negative": negative, "neutral": neutral, "positive": positive}
    judged = Sentiment(model=classifier(tmp_path / "c", tiny_tokenizer, named)).judge(samples(TEXTS), Judges())
    found = estimates(judged, 1)
    assert found["sentiment"].value == pytest.approx(sentiment, rel=1e-5)
    assert found["fraction_positive"].value == fraction


def test_acceptability_and_any_label(tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast) -> None:
    model = classifier(tmp_path / "c", tiny_tokenizer, {"unacceptable": 0.3, "acceptable": 0.7})
    found = estimates(Acceptability(model=model).judge(samples(TEXTS), Judges()), 1)
    assert found["acceptability"].value == pytest.approx(0.7, rel=1e-5)
    judged = Classifier(model=model, label="unacceptable", name="odd").judge(samples(TEXTS), Judges())
    assert estimates(judged, 1)["odd"].value == pytest.approx(0.3, rel=1e-5)
