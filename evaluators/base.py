"""What an evaluator is: a small class whose fields are its configuration, and what it hands back.

Four kinds: `TextEvaluator` judges completions, `ProbeEvaluator` asks the mixed model itself, `ContrastEvaluator`
compares its answers with those of other mixtures, `CheckpointEvaluator` looks at the checkpoints' weights.  Each says
so itself (`looks_at`) and returns a `Judgement`; the harness stores it and draws the intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Completion, Direction, Estimate, Metric, Prompt, Recipe, TensorDistance, Value
from bench.serving import ServedModel
from bench.stats import ScoreColumn, Summary
from bench.suite.checkpoints import Checkpoint, resolve
from evaluators.judges import Judges

Answer = NDArray[np.float32]  # of one mixture to those that are compared with it: an array of any shape
Scope = Literal["full", "completion"]
Subject = Literal["completions", "mixture", "checkpoints"]


@dataclass(frozen=True)
class Samples:
    """The completions of one point; `completions[i].prompt` indexes `prompts`."""

    prompts: Sequence[Prompt]
    completions: Sequence[Completion]

    def __len__(self) -> int:
        return len(self.completions)

    @cached_property
    def prompt_of(self) -> NDArray[np.int64]:
        """(N,) the prompt index of each completion."""
        return np.array([c.prompt for c in self.completions], dtype=np.int64)

    def texts(self, scope: Scope) -> list[str]:
        """The judged texts: `full` is prompt and completion, `completion` the completion alone."""
        if scope == "completion":
            return [c.text for c in self.completions]
        return [self.prompts[c.prompt].text + c.text for c in self.completions]


@dataclass(frozen=True)
class Judgement:
    """An evaluator's verdict.

    `scores`: metric name -> one value per completion, stored as they are.  `summaries`: what is estimated, per prompt
    set and over all; a metric may be in both.  `items`: what the rows of the summaries are, where they are not the
    prompts of the completions (labelled sentences, words); such summaries are estimated over all items only, since each
    metric names the items that it counts.  `estimates`: finished values without an interval of their own.
    `distances`: how far apart checkpoints are, tensor by tensor.
    """

    scores: Mapping[str, ScoreColumn] = field(default_factory=dict)
    summaries: Sequence[Summary] = ()
    items: Sequence[Prompt] | None = None
    estimates: Sequence[Estimate] = ()
    distances: Sequence[TensorDistance] = ()


class Evaluator(Value):
    """Common to all kinds.  `version` is raised when equal input would be judged differently.

    `looks_at` says which of `judge`, `ask` and `inspect` the harness calls: on completions, a mixture, the checkpoints.
    """

    version: ClassVar[int] = 1
    source: ClassVar[str] = ""
    looks_at: ClassVar[Subject]
    suffix: str = Field(default="", description="appended to metric names, so that a suite can hold two configurations")

    def metrics(self) -> tuple[Metric, ...]:
        """What is reported: every name in a judgement is one of these."""
        raise NotImplementedError

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        """The verdict on one point's completions."""
        raise NotImplementedError

    def ask(
        self, model: ServedModel, recipe: Recipe, beside: Sequence[Answer] = (), advance: Advance = silent
    ) -> Judgement:
        """The verdict on a served mixture; `beside` are the answers of the mixtures that `beside(recipe)` names."""
        raise NotImplementedError

    def inspect(self, checkpoints: Mapping[str, Checkpoint], advance: Advance = silent) -> Judgement:
        """The verdict on a suite's checkpoints, by name."""
        raise NotImplementedError

    def beside(self, recipe: Recipe) -> Sequence[Recipe]:
        """The other mixtures whose answers the verdict on `recipe` needs."""
        return ()

    def answer(self, model: ServedModel, advance: Advance = silent) -> Answer:
        """What one mixture says to those that are compared with it."""
        raise NotImplementedError

    def require(self, names: Sequence[str]) -> None:
        """Raise UserError where the suite's checkpoints, by name, are not those that a verdict needs."""

    def data_digests(self) -> list[str]:
        """Digests of the models and files that the verdict depends on beside the configuration."""
        return []

    def held_out(self) -> Sequence[Prompt]:
        """Sentences that no expert may have been trained or chosen on: a verdict on them would praise memory."""
        return ()

    def named(self, name: str) -> str:
        """The metric's name in this configuration."""
        return f"{name}{self.suffix}"

    def metric(self, name: str, direction: Direction, unit: str, description: str) -> Metric:
        """One entry of `metrics()`, under its name in this configuration."""
        return Metric(name=self.named(name), direction=direction, unit=unit, description=description)


class TextEvaluator(Evaluator):
    """Judges completions: defines `judge`."""

    looks_at = "completions"


class ModelJudgeEvaluator(TextEvaluator):
    """Judges completions with a model, whose bytes the verdict depends on."""

    model: str = Field(description="a packaged, local or hub model")

    def data_digests(self) -> list[str]:
        return [self._digest]

    @cached_property
    def _digest(self) -> str:
        return resolve(self.model).digest


class ProbeEvaluator(Evaluator):
    """Asks the mixed model itself: defines `probe`."""

    looks_at = "mixture"

    def probe(self, model: ServedModel, advance: Advance = silent) -> Judgement:
        raise NotImplementedError

    def ask(
        self, model: ServedModel, recipe: Recipe, beside: Sequence[Answer] = (), advance: Advance = silent
    ) -> Judgement:
        return self.probe(model, advance)


class ContrastEvaluator(Evaluator):
    """Asks a mixture and others beside it the same questions, and compares: defines `beside`, `answer`, `compare`.

    An engine serves one mixture at a time, so answers are kept, not models.  Points share the mixtures beside them (the
    checkpoints as they are, say): each of those is served and asked once a run.
    """

    looks_at = "mixture"

    def compare(self, recipe: Recipe, answer: Answer, beside: Sequence[Answer]) -> Judgement:
        """The verdict on `recipe`, from its answer and those of `beside(recipe)` in their order."""
        raise NotImplementedError

    def ask(
        self, model: ServedModel, recipe: Recipe, beside: Sequence[Answer] = (), advance: Advance = silent
    ) -> Judgement:
        return self.compare(recipe, self.answer(model, advance), beside)


class CheckpointEvaluator(Evaluator):
    """Looks at the checkpoints of a suite, once for all points: defines `inspect`."""

    looks_at = "checkpoints"
