"""A language model as a judge of pairs: which of two texts follows the suite's rubric better?

Every pair is shown in both orders, so that a liking for the first place cancels; how often the two verdicts agree, and
how often the judge agrees with people's labels, is reported beside its judgement.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, field_validator

from bench.progress import Advance, silent
from bench.schema import Direction, Estimate, Metric, Prompt, PromptSource, UserError, Value
from bench.stats import ratio_statistic
from bench.suite.prompts import load_set, texts_digest
from evaluators.base import Judgement, ModelJudgeEvaluator, Samples, Scope
from evaluators.classifier import mean_judgement
from evaluators.judges import Judge, Judges
from evaluators.scoring import Precision, context_length, encode, token_nlls

Floats = NDArray[np.float64]


class Labelled(Value):
    """Texts that people put in order: the i-th of `better` is better by the rubric than the i-th of `worse`."""

    better: PromptSource
    worse: PromptSource


@dataclass(frozen=True)
class Verdicts:
    """On pairs of texts: how much the first is preferred, in both orders; NaN where a pair is too long."""

    first_shown: Floats  # P(the first is better), shown first
    second_shown: Floats  # the same, shown second

    @property
    def preference(self) -> Floats:
        return (self.first_shown + self.second_shown) / 2

    @property
    def consistent(self) -> Floats:
        same = (self.first_shown > 0.5) == (self.second_shown > 0.5)
        return np.where(np.isnan(self.preference), np.nan, same.astype(float))


class LlmJudge(ModelJudgeEvaluator):
    """How often a language model prefers the completions to reference texts, by the suite's rubric."""

    source = "Zheng et al. 2023, arXiv 2306.05685: pairwise comparison, positions swapped"
    model: str = Field(description="a packaged, local or hub causal language model")
    rubric: str = Field(description="what the judge reads; {a} and {b} are the two texts, the answer follows")
    references: PromptSource = Field(description="texts that completions are compared with, one each, in turn")
    labelled: Labelled = Field(description="pairs that people have judged: the judge's agreement with them is reported")
    answers: tuple[str, str] = Field(default=(" A", " B"), description="what follows where {a}, or {b}, is better")
    chat: bool = Field(default=False, description="the rubric is a user's message in the model's chat template")
    scope: Scope = Field(default="full", description="judge prompt + completion, or the completion alone")
    name: str = Field(default="llm_judge", description="the metric's name", pattern=r"^[A-Za-z0-9_.-]+$")
    direction: Direction = Field(default="higher", description="whether higher or lower is better")
    precision: Precision = Field(default="float32", description="bfloat16: autocast, for a GPU")
    _agreement: Estimate | None = PrivateAttr(default=None)  # of the labelled pairs, once a run

    @field_validator("rubric")
    @classmethod
    def _both_texts(cls, rubric: str) -> str:
        if "{a}" not in rubric or "{b}" not in rubric:
            raise ValueError("a rubric shows both texts: it needs {a} and {b}")
        return rubric

    def metrics(self) -> tuple[Metric, ...]:
        by = f"by {self.model}, mean of both orders"
        return (
            self.metric(self.name, self.direction, "probability", f"mean P(better than a reference) {by}"),
            self.metric(f"{self.name}_consistency", "higher", "share", "comparisons whose two orders agree"),
            self.metric(f"{self.name}_agreement", "higher", "share", "labelled pairs that are ordered as by people"),
        )

    def data_digests(self) -> list[str]:
        return [*super().data_digests(), *(texts_digest(texts) for texts in (self._references, *self._pairs))]

    @cached_property
    def _references(self) -> list[Prompt]:
        return load_set("references", self.references)

    @cached_property
    def _pairs(self) -> tuple[list[Prompt], list[Prompt]]:
        better, worse = load_set("better", self.labelled.better), load_set("worse", self.labelled.worse)
        if len(better) != len(worse):
            raise UserError(f"labelled: better and worse are no pairs: they have {len(better)} and {len(worse)} texts")
        return better, worse

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        judge = judges.language_model(self.model)
        against = [self._references[(c.prompt + c.sample) % len(self._references)].text for c in samples.completions]
        found = self.verdicts(judge, list(zip(samples.texts(self.scope), against, strict=True)))
        reasons = dict.fromkeys(np.flatnonzero(np.isnan(found.preference)).tolist(), "longer than the judge's context")
        values = {
            self.named(self.name): found.preference,
            self.named(f"{self.name}_consistency"): found.consistent,
        }
        advance(len(samples))
        judged = mean_judgement(samples, values, reasons)
        return Judgement(scores=judged.scores, summaries=judged.summaries, estimates=[self.agreement(judge)])

    def agreement(self, judge: Judge) -> Estimate:
        """The share of labelled pairs of which the judge prefers the better one."""
        if self._agreement is None:
            better, worse = self._pairs
            pairs = [(a.text, b.text) for a, b in zip(better, worse, strict=True)]
            preference = self.verdicts(judge, pairs).preference
            places, known = np.arange(len(pairs)), ~np.isnan(preference)
            right = (preference > 0.5).astype(float)
            share = ratio_statistic(self.named(f"{self.name}_agreement"), places, right, len(pairs), scored=known)
            self._agreement = share.estimate(np.ones(len(pairs), bool), None)
        return self._agreement

    def verdicts(self, judge: Judge, pairs: Sequence[tuple[str, str]]) -> Verdicts:
        """The judge's preference for the first of each pair, shown first and shown second."""
        shown_first = self._first_answer(judge, pairs)
        return Verdicts(shown_first, 1 - self._first_answer(judge, [(b, a) for a, b in pairs]))

    def _first_answer(self, judge: Judge, pairs: Sequence[tuple[str, str]]) -> Floats:
        """P(first answer) / P(either answer) behind the rubric of each pair, (N,); NaN where that is too long."""
        asked = encode(judge, [self._question(judge, a, b) for a, b in pairs])
        answers = [list(judge.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in self.answers]
        limit = context_length(judge) - max(map(len, answers))
        fit = [i for i, ids in enumerate(asked) if 0 < len(ids) <= limit]
        rows = [asked[i] + answer for i in fit for answer in answers]
        nlls = token_nlls(judge, rows, precision=self.precision)
        sums = np.array([nll[-len(answers[i % 2]) :].sum() for i, nll in enumerate(nlls)]).reshape(-1, 2)
        found = np.full(len(pairs), np.nan)
        found[fit] = 1 / (1 + np.exp(sums[:, 0] - sums[:, 1]))
        return found

    def _question(self, judge: Judge, a: str, b: str) -> str:
        shown = {"{a}": a, "{b}": b}  # in one go, since the texts may hold braces of their own
        question = "".join(shown.get(piece, piece) for piece in re.split(r"(\{a\}|\{b\})", self.rubric))
        if not self.chat:
            return question
        message = [{"role": "user", "content": question}]
        return str(judge.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
