"""Any text classifier as an evaluator: the mean probability of one of its labels, over the completions.

Sentiment and acceptability are configurations of what is here; toxicity and others are `classifier` with a model and
a label.  Labels are matched by the names in the model's own configuration, never by position.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Direction, Metric, UserError
from bench.stats import ScoreColumn, ratio_statistic
from evaluators.base import Judgement, ModelJudgeEvaluator, Samples, Scope
from evaluators.judges import Judge, Judges
from evaluators.scoring import Precision, classify

# Models whose configuration names labels LABEL_0, LABEL_1, ...; what these mean is on their model cards.
KNOWN_LABELS: Mapping[str, Mapping[str, str]] = {
    "cardiffnlp/twitter-roberta-base-sentiment": {"LABEL_0": "negative", "LABEL_1": "neutral", "LABEL_2": "positive"},
    "textattack/roberta-base-CoLA": {"LABEL_0": "unacceptable", "LABEL_1": "acceptable"},
}


class ClassifierEvaluator(ModelJudgeEvaluator):
    """What all classifier evaluators share: the model, the judged text, the meaning of labels."""

    model: str = Field(description="a packaged, local or hub sequence classifier")
    scope: Scope = Field(default="full", description="judge prompt + completion, or the completion alone")
    labels: dict[str, str] = Field(default={}, description="the model's label -> what it means, where names differ")
    normalise: Literal["none", "tweet"] = Field(
        default="none", description="tweet: users become @user and links http, as in cardiffnlp's training text"
    )
    precision: Precision = Field(default="float32", description="bfloat16: autocast, for a GPU")

    def places(self, judge: Judge, expected: Sequence[Sequence[str]]) -> dict[str, int]:
        """Label -> column of the model's output.  Raises UserError unless the labels are one of the `expected` sets."""
        return label_places(judge, self._meanings, expected)

    def of_label(
        self, label: str, samples: Samples, judges: Judges, advance: Advance
    ) -> tuple[NDArray[np.float64], dict[int, str]]:
        """(N,) probabilities of one label; NaN rows have their reason.  Raises UserError unless one column has it."""
        judge = judges.classifier(self.model)
        found = meanings(judge, self._meanings)
        if found.count(label.lower()) != 1:
            raise UserError(_refusal(judge, label, [label]))
        probabilities, reasons = self.probabilities(judge, samples, advance)
        return probabilities[:, found.index(label.lower())], reasons

    @property
    def _meanings(self) -> Mapping[str, str]:
        return self.labels or KNOWN_LABELS.get(self.model.partition("@")[0], {})

    def probabilities(
        self, judge: Judge, samples: Samples, advance: Advance
    ) -> tuple[NDArray[np.float64], dict[int, str]]:
        """(N, L) probabilities of the completions in their scope; NaN rows have their reason."""
        texts = samples.texts(self.scope)
        if self.normalise == "tweet":
            texts = [normalise_tweet(text) for text in texts]
        return classify(judge, texts, activation_of(judge), self.precision, advance)


class Classifier(ClassifierEvaluator):
    """The mean probability of one label: toxicity and whatever else a classifier can tell."""

    source = "the classifier's own"
    label: str = Field(description="the label whose probability is averaged, by the model's name or by `labels`")
    name: str = Field(default="classifier", description="the metric's name", pattern=r"^[A-Za-z0-9_.\[\]-]+$")
    direction: Direction = Field(default="neutral", description="whether higher or lower is better")

    def metrics(self) -> tuple[Metric, ...]:
        description = f"mean P({self.label}) by {self.model}, {self.scope} text"
        return (self.metric(self.name, self.direction, "probability", description),)

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        values, reasons = self.of_label(self.label, samples, judges, advance)
        return mean_judgement(samples, {self.named(self.name): values}, reasons)


def mean_judgement(
    samples: Samples, values: Mapping[str, NDArray[np.float64]], reasons: Mapping[int, str]
) -> Judgement:
    """Scores and their mean over completions; `values`: metric -> (N,), NaN where `reasons` say why."""
    scored = np.array([i not in reasons for i in range(len(samples))], dtype=bool)
    scores, summaries = {}, []
    for name, value in values.items():
        listed = [x if ok else None for x, ok in zip(value.tolist(), scored.tolist(), strict=True)]
        scores[name] = ScoreColumn(listed, reasons)
        summaries.append(ratio_statistic(name, samples.prompt_of, value, len(samples.prompts), scored=scored))
    return Judgement(scores=scores, summaries=summaries)


def activation_of(judge: Judge) -> Literal["softmax", "sigmoid"]:
    """Sigmoid for a model of several independent labels or of one output, as in transformers' pipeline."""
    config = judge.model.config
    several = getattr(config, "problem_type", None) == "multi_label_classification"
    return "sigmoid" if several or config.num_labels == 1 else "softmax"


def meanings(judge: Judge, labels: Mapping[str, str]) -> list[str]:
    """What each output column means, in lower case: the model's id2label, renamed by `labels`."""
    names = {int(i): str(name) for i, name in judge.model.config.id2label.items()}
    renamed = {own.lower(): meaning.lower() for own, meaning in labels.items()}
    return [renamed.get(names[i].lower(), names[i].lower()) for i in sorted(names)]


def label_places(judge: Judge, labels: Mapping[str, str], expected: Sequence[Sequence[str]]) -> dict[str, int]:
    """Meaning -> column, if the model's labels are exactly one of the `expected` sets.  Raises UserError."""
    found = meanings(judge, labels)
    if not any(sorted(found) == sorted(names) for names in expected):
        wanted = " or ".join(", ".join(names) for names in expected)
        raise UserError(_refusal(judge, wanted, expected[0]))
    return {name: column for column, name in enumerate(found)}


def _refusal(judge: Judge, wanted: str, example: Sequence[str]) -> str:
    own = [str(name) for _, name in sorted((int(i), name) for i, name in judge.model.config.id2label.items())]
    pairs = ", ".join(f"{name}: {meaning}" for name, meaning in zip(own, example, strict=False))
    return (
        f"classifier {judge.checkpoint.source}: expected the labels {wanted}, but its configuration has "
        f"{', '.join(own)}; say what they mean with labels, for instance labels: {{{pairs}}}"
    )


def normalise_tweet(text: str) -> str:
    """Words that start with @ become @user, those that start with http become http, as on cardiffnlp's model card."""
    return " ".join(_normalised_word(word) for word in text.split(" "))


def _normalised_word(word: str) -> str:
    if word.startswith("@") and len(word) > 1:
        return "@user"
    return "http" if word.startswith("http") else word
