"""Any module of Hugging Face `evaluate` that takes texts, as an evaluator."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import evaluate
import numpy as np
from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Direction, Estimate, Metric, UserError
from bench.stats import ScoreColumn, ratio_statistic
from evaluators.base import Judgement, Samples, Scope, TextEvaluator
from evaluators.judges import Judges


class HuggingFace(TextEvaluator):
    """`KEY` of a module's output for each of `keys`.

    A list with one number a text is scored per completion and averaged, with an interval; one number for all texts is
    computed over all completions and over each prompt set's, and has none.
    """

    source = "https://huggingface.co/docs/evaluate"
    module: str = Field(description="a hub name, or the path of a script or its folder")
    keys: tuple[str, ...] = Field(min_length=1, description="which entries of the output are reported")
    kind: Literal["measurement", "metric"] = Field(default="measurement", description="the module's type")
    config: str | None = Field(default=None, description="the module's configuration")
    scope: Scope = Field(default="completion", description="judge the completion alone, or prompt + completion")
    text_input: str = Field(default="data", description="the module's input that takes the texts, often predictions")
    prompt_input: str | None = Field(
        default=None, description="an input that takes the prompts, for instance references"
    )
    arguments: dict[str, Any] = Field(default={}, description="further arguments of compute()")
    direction: Direction = Field(default="neutral", description="whether higher or lower is better")

    def metrics(self) -> tuple[Metric, ...]:
        return tuple(self.metric(key, self.direction, "", f"{key} of {self.module}") for key in self.keys)

    def data_digests(self) -> list[str]:
        code = inspect.getsource(sys.modules[type(self._loaded).__module__])
        return [hashlib.sha256(code.encode()).hexdigest()]

    @cached_property
    def _loaded(self) -> Any:
        """The module.  Raises UserError where it cannot be had."""
        importlib.invalidate_caches()  # its loader imports a file that it has just written
        try:
            return evaluate.load(self.module, self.config, module_type=self.kind, keep_in_memory=True)
        except Exception as error:  # its loader raises many kinds: no network, unknown name, a missing dependency
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"evaluate module {self.module}: cannot be loaded ({type(error).__name__}: {reason})"
            ) from error

    def judge(self, samples: Samples, judges: Judges, advance: Advance = silent) -> Judgement:
        everything = list(range(len(samples)))
        output = self._compute(samples, everything)
        listed = [key for key in self.keys if not _is_number(output[key])]
        scores = {self.named(key): ScoreColumn(_numbers(output[key], len(samples), key)) for key in listed}
        summaries = [
            ratio_statistic(name, samples.prompt_of, np.array(column.values, dtype=np.float64), len(samples.prompts))
            for name, column in scores.items()
        ]
        estimates: list[Estimate] = []
        whole = [key for key in self.keys if key not in listed]
        if whole:
            estimates += self._estimates(output, whole, None, len(samples))
            for name, rows in _rows_of_sets(samples).items():
                estimates += self._estimates(self._compute(samples, rows), whole, name, len(rows))
        advance(len(samples))
        return Judgement(scores=scores, summaries=summaries, estimates=estimates)

    def _compute(self, samples: Samples, rows: Sequence[int]) -> Mapping[str, Any]:
        texts = samples.texts(self.scope)
        inputs = {self.text_input: [texts[row] for row in rows]}
        if self.prompt_input is not None:
            inputs[self.prompt_input] = [samples.prompts[samples.completions[row].prompt].text for row in rows]
        self._require_inputs(inputs)
        try:
            output: Mapping[str, Any] = self._loaded.compute(**inputs, **self.arguments)
        except Exception as error:  # someone else's code; its name belongs in the message
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"evaluate module {self.module} failed: {type(error).__name__}: {reason}") from error
        if missing := [key for key in self.keys if key not in output]:
            has = ", ".join(output)
            raise UserError(f"evaluate module {self.module}: keys: its output has {has}, and no {missing[0]}")
        return output

    def _require_inputs(self, given: Mapping[str, Any]) -> None:
        features = self._loaded.features
        accepted = [list(option) for option in (features if isinstance(features, list) else [features])]
        if sorted(given) not in [sorted(names) for names in accepted]:
            takes, gives = " or ".join(" and ".join(names) for names in accepted), " and ".join(given)
            raise UserError(
                f"evaluate module {self.module}: it takes {takes}, but text_input and prompt_input give {gives}"
            )

    def _estimates(self, output: Mapping[str, Any], keys: Sequence[str], prompts: str | None, n: int) -> list[Estimate]:
        return [
            Estimate(metric=self.named(key), prompts=prompts, value=float(output[key]), n_scored=n, n_total=n)
            for key in keys
        ]


def _is_number(value: Any) -> bool:
    return np.ndim(value) == 0 and not isinstance(value, str)


def _numbers(value: Any, n: int, key: str) -> list[float]:
    if isinstance(value, str) or len(value) != n:
        raise UserError(f"evaluate output {key}: expected a number, or one for each of {n} texts")
    return [float(number) for number in value]


def _rows_of_sets(samples: Samples) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, completion in enumerate(samples.completions):
        rows.setdefault(samples.prompts[completion.prompt].set, []).append(row)
    return rows
