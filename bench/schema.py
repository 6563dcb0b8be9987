"""The nouns that travel between the stages: frozen values that refuse unknown keys.

suite -> plan -> execute -> store -> leaderboard; each arrow carries values of this module and nothing hidden.
"""

import json
import math
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

import pydantic
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

Space = Literal["weights", "logits", "probs", "activations"]
Direction = Literal["higher", "lower", "neutral"]
FinishReason = Literal["stop", "length"]
Role = Literal["base", "again", "method", "strength", "control", "ensemble"]  # of a mixture that is timed

ENSEMBLES = ("logits", "probs")  # spaces in which every member runs for every token
STEERING = "steering"  # the name of the vector's coefficient in activation space

LARGEST = (2 - 2**-23) * 2.0**127  # of float32


class UserError(Exception):
    """A mistake that the user can mend: printed as one line, exit code 2."""


class Value(BaseModel):
    """A frozen pydantic value; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def require_text(value: str) -> str:
    """Raise ValueError for what UTF-8 cannot hold: halves of a character (lone surrogates)."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a character, {value[error.start]!r}, which is no text") from error
    return value


Text = Annotated[str, AfterValidator(require_text)]
Name = Annotated[str, Field(min_length=1), AfterValidator(require_text)]


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN; what content keys are computed over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


class Rule(Value):
    """How a weights mixture is made of each tensor where that is no plain sum; `bench.engines.mixing` has the rules.

    `seed` starts the random numbers of rules that draw some.
    """

    name: str
    params: dict[str, float | str] = {}
    seed: int | None = Field(default=None, ge=0, lt=2**31)


class Prefixed(Value):
    """A member that is a checkpoint which reads a text before every prompt."""

    checkpoint: str
    text: Text = Field(min_length=1)


class Steering(Value):
    """A vector for the residual stream: the mean output of a layer over the tokens of one text, less another's."""

    layer: int = Field(ge=0)
    add: Text = Field(min_length=1)
    subtract: Text = Field(min_length=1)


class Draft(Value):
    """The weights mixture that drafts for a mixture of logits: so many tokens before they are verified.

    `auto`: as many as pay, by how much of both mixtures' next-token distributions overlaps; an engine finds that out.
    """

    coefficients: dict[str, float]
    k: Annotated[int, Field(ge=1, le=32)] | Literal["auto"]

    @property
    def recipe(self) -> "Recipe":
        return Recipe(space="weights", coefficients=self.coefficients)


class Recipe(Value):
    """A mixture of named members: coefficients and the space in which they apply.

    In weight space theta = sum_i c_i theta_i, or what `rule` makes of each tensor; in logit space z = sum_i c_i z_i; in
    probability space p = sum_i c_i p_i; in activation space c_base is 1 and c_steering times the vector of `steering`
    is added to a layer's output at every position.
    A member is the checkpoint of its name, unless `prefixes` says which one reads what.  Coefficients are rounded to 12
    decimals and zeros dropped, with them what nothing refers to, so that equal mixtures are equal values.
    With `filter_p`, candidates are the nucleus of `base` before mixing (the DExperts release), not the nucleus of the
    mixture (the paper); with `plausible`, tokens at least that many times as likely as the likeliest to `expert`.
    With `draft`, tokens have the same distribution and are other draws of it: `bench.engines.speculative`.
    """

    space: Space
    coefficients: dict[str, float]
    filter_p: float | None = Field(default=None, gt=0, le=1)
    plausible: float | None = Field(default=None, gt=0, le=1)
    rule: Rule | None = None
    prefixes: dict[str, Prefixed] = {}
    steering: Steering | None = None
    draft: Draft | None = None

    @field_validator("coefficients")
    @classmethod
    def _canonical(cls, coefficients: dict[str, float]) -> dict[str, float]:
        for name, value in coefficients.items():
            if not abs(value) <= LARGEST:
                raise ValueError(f"coefficient of {name} must be a finite float32, got {value}")
        rounded = {name: round(float(value), 12) for name, value in sorted(coefficients.items())}
        kept = {name: value for name, value in rounded.items() if value != 0}
        if not kept:
            raise ValueError("a recipe needs at least one coefficient that is not zero")
        return kept

    @field_validator("rule")
    @classmethod
    def _rule_needs_two(cls, rule: Rule | None, info: ValidationInfo) -> Rule | None:
        return None if len(info.data.get("coefficients", ())) == 1 else rule

    @field_validator("prefixes")
    @classmethod
    def _prefixes_of_members(cls, prefixes: dict[str, Prefixed], info: ValidationInfo) -> dict[str, Prefixed]:
        return {name: prefixes[name] for name in sorted(prefixes.keys() & info.data.get("coefficients", {}).keys())}

    @field_validator("steering")
    @classmethod
    def _steering_of_strength(cls, steering: Steering | None, info: ValidationInfo) -> Steering | None:
        return steering if STEERING in info.data.get("coefficients", {}) else None

    @field_validator("draft")
    @classmethod
    def _draft_of_several(cls, draft: Draft | None, info: ValidationInfo) -> Draft | None:
        """One model needs no draft."""
        if draft is None or len(info.data.get("coefficients", ())) == 1:
            return None
        return draft.model_copy(update={"coefficients": draft.recipe.coefficients})

    @model_validator(mode="after")
    def _each_in_its_space(self) -> "Recipe":
        mixed = self.coefficients
        if self.rule is not None and self.space != "weights":
            raise ValueError("a rule needs a weights recipe")
        if self.filter_p is not None and (self.space != "logits" or "base" not in mixed):
            raise ValueError("filter_p needs a logits recipe with a checkpoint named base")
        if self.plausible is not None and (self.space not in ENSEMBLES or "expert" not in mixed):
            raise ValueError("plausible needs a recipe of logits or probs with a checkpoint named expert")
        if self.draft is not None:
            if self.space != "logits" or self.filter_p is not None or self.plausible is not None or self.prefixes:
                raise ValueError("a draft needs a logits recipe without filter_p, plausible and prefixes")
            if unknown := self.draft.coefficients.keys() - mixed.keys():
                raise ValueError(f"a draft mixes the recipe's own members, not {', '.join(sorted(unknown))}")
        if self.prefixes and self.space not in ENSEMBLES:
            raise ValueError("prefixes need a recipe of logits or probs")
        if self.space == "probs" and (min(mixed.values()) < 0 or not math.isclose(sum(mixed.values()), 1)):
            raise ValueError("a mixture of probabilities needs coefficients above 0 that sum to 1")
        if self.space == "activations" and (mixed.get("base") != 1 or mixed.keys() - {"base", STEERING}):
            raise ValueError("an activations recipe has base with coefficient 1, and steering")
        if (self.steering is not None) != (self.space == "activations" and STEERING in mixed):
            raise ValueError("steering and its coefficient in an activations recipe need each other")
        return self

    @property
    def checkpoints(self) -> dict[str, str]:
        """Member -> the checkpoint that it is."""
        members = [name for name in self.coefficients if self.steering is None or name != STEERING]
        return {name: self.prefixes[name].checkpoint if name in self.prefixes else name for name in members}

    @property
    def models_per_token(self) -> int:
        """Models that read each token: one a member of an ensemble and its draft, one for everything else."""
        return len(self.coefficients) + (self.draft is not None) if self.space in ENSEMBLES else 1


class Sampling(Value):
    """How completions are drawn; the paper's table 3 by default.  temperature 0 is greedy decoding."""

    samples: int = Field(default=25, ge=1)
    max_new_tokens: int = Field(default=30, ge=1)
    top_p: float = Field(default=0.9, gt=0, le=1)
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**31)


class Prompt(Value):
    """A prompt, or a labelled sentence, of a named set; identified by its row, since texts may repeat."""

    set: Name
    row: int
    text: Text


class Point(Value):
    """One place in a sweep: a method, its parameters, and the recipe they stand for."""

    method: str
    params: dict[str, Any]
    recipe: Recipe

    @property
    def key(self) -> str:
        """What tells it from the suite's other points."""
        return canonical_json([self.method, self.params])

    @property
    def label(self) -> str:
        shown = {k: f"{v:g}" if isinstance(v, int | float) else v for k, v in self.params.items()}
        inside = ", ".join(f"{key}={value}" for key, value in shown.items())
        return f"{self.method}({inside})" if inside else self.method


@dataclass(frozen=True, slots=True)
class Completion:
    """One continuation of a prompt; `prompt` indexes the prompts that were given to the engine."""

    prompt: int
    sample: int
    text: str
    n_tokens: int
    finish_reason: FinishReason


class Metric(Value):
    """A quantity that an evaluator reports."""

    name: str
    direction: Direction = "neutral"
    unit: str = ""
    description: str = ""


@pydantic.dataclasses.dataclass(frozen=True)
class Number:
    """A number with its 95 % interval and how many items it rests on, of how many; None has its reason.

    An end of the interval is None where there is nothing to resample, or where it is unbounded.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n_scored: int = 0
    n_total: int = 0
    reason: str | None = None


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate(Number):
    """A metric over one prompt set; `prompts` None: over all."""

    metric: str
    prompts: str | None


class TensorDistance(Value):
    """How far apart a pair `a:b` of checkpoints is in one tensor: ||a - b|| / sqrt(number of elements)."""

    pair: str
    tensor: str
    elements: int
    distance: float


class PromptSource(Value):
    """Where prompts or sentences come from: `mini:NAME`, a file (.jsonl, .csv, .txt), `hub:NAME`, or a file there,
    `hub:OWNER/NAME/PATH`.

    `column` may reach into nested objects with dots; `label` keeps only rows whose `label_column` is in the list.
    """

    source: str
    column: str = "text"
    split: str = "train"
    config: str | None = None
    label_column: str = "label"
    label: tuple[int, ...] | None = None
    limit: int | None = Field(default=None, ge=1)


class MethodSpec(Value):
    """A method named by a suite; every parameter is the list of values it sweeps."""

    name: str
    params: dict[str, tuple[Any, ...]] = {}


class EvaluatorSpec(Value):
    """An evaluator named by a suite, with its configuration."""

    name: str
    options: dict[str, Any] = {}


class Lora(Value):
    """Train a LoRA adapter on every linear layer but the head, and merge it; alpha is twice r unless given."""

    r: int = Field(ge=1)
    alpha: float | None = Field(default=None, gt=0)

    @property
    def scale(self) -> float:
        """alpha as PEFT wants it."""
        return 2.0 * self.r if self.alpha is None else self.alpha


class Trial(Value):
    """One setting of the grid that an expert is chosen from."""

    learning_rate: float
    batch_size: int
    steps: int
    precision: Literal["float32", "bfloat16"]
    seed: int
    lora: Lora | None = None


class TrialRecord(Value):
    """A finished trial.  `validations`: (step, perplexity) from the base's, step 0, on; None where it is not finite.

    `checkpoint_digest` is None where the weights were not kept, because another trial of the grid was better.
    """

    key: str
    base_digest: str
    trial: Trial
    n_train: int
    n_validation: int
    n_cut: int  # texts that were longer than the model's context
    validations: tuple[tuple[int, float | None], ...]
    duration_s: float
    checkpoint_digest: str | None
    environment: dict[str, Any]
    created_at: str

    @property
    def perplexity(self) -> float | None:
        """Of the validation sentences, after the last step."""
        return self.validations[-1][1]


class Share(Value):
    """What one worker did of a run, and the seconds: `present_s` from its greeting to the run's end."""

    name: str
    node: str
    device: str
    n_generated: int  # mixtures, or pieces of their completions, that it served
    n_judged: int  # verdicts
    generating_s: float
    judging_s: float
    present_s: float

    @property
    def units(self) -> int:
        return self.n_generated + self.n_judged

    @property
    def busy_s(self) -> float:
        return self.generating_s + self.judging_s

    @property
    def busy(self) -> float:
        """The share of its time that was work."""
        return min(1.0, self.busy_s / self.present_s) if self.present_s else 0.0

    def __str__(self) -> str:
        return f"{self.name} on {self.node} ({self.device}): {self.told}"

    @property
    def told(self) -> str:
        """How much it did, and how busy it was."""
        return f"{self.n_generated} generated, {self.n_judged} judged, {self.busy:.0%} busy"


class ExpertData(Value):
    """The sentences that an expert is trained on, and those that choose between its trials."""

    train: PromptSource
    validation: PromptSource


class FinetuneSpec(Value):
    """Experts made from a checkpoint of the suite; the paper's table 2 by default.  docs/FINETUNING.md says more.

    Every combination of learning rate, batch size and steps is a trial; the expert is the best by validation
    perplexity.  The device holds `device_batch_size` rows at a time and adds up a batch's gradients; it is no part of
    a trial.
    Sentences of `exclude` are left out of training and validation.
    """

    base: str = "base"
    experts: dict[str, ExpertData] = Field(min_length=1)
    learning_rate: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(default=(1e-6,), min_length=1)
    batch_size: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(64,), min_length=1)
    steps: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1000,), min_length=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    device_batch_size: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    lora: Lora | None = None
    exclude: tuple[PromptSource, ...] = ()

    @field_validator("learning_rate", "batch_size", "steps", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, (list, tuple)) else (value,)

    @model_validator(mode="after")
    def _batches_divide(self) -> "FinetuneSpec":
        rows = self.device_batch_size
        if rows is not None and (uneven := [size for size in self.batch_size if size > rows and size % rows]):
            raise ValueError(f"batch_size {uneven[0]} is not a multiple of device_batch_size {rows}")
        return self

    @property
    def trials(self) -> tuple[Trial, ...]:
        grid = dict.fromkeys(product(self.learning_rate, self.batch_size, self.steps))
        return tuple(
            Trial(
                learning_rate=rate,
                batch_size=size,
                steps=steps,
                precision=self.precision,
                seed=self.seed,
                lora=self.lora,
            )
            for rate, size, steps in grid
        )


class Price(Value):
    """What an hour of the machine that runs one engine costs: all its GPUs together."""

    per_hour: float = Field(gt=0, allow_inf_nan=False)
    currency: Name = "USD"


class OverheadSpec(Value):
    """How a suite's methods are timed; docs/OVERHEAD.md says why so.

    Rounds go on until every method's ratio to the base is known to +-`precision` of itself, or the budget is spent.
    """

    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 8, 32), min_length=1)
    new_tokens: tuple[Annotated[int, Field(ge=2)], ...] = Field(default=(8, 32), min_length=1)
    rounds: int = Field(default=10, ge=3)
    precision: float = Field(default=0.02, gt=0)
    budget_s: float = Field(default=120, gt=0)
    price: Price | None = None


class OverheadRecord(Value):
    """One line of the overhead ledger; times in seconds, memory in bytes.  A missing value has its reason in details.

    `batch_size` and `new_tokens` are 0 for what depends on neither; `n_rounds` is 0 for what is computed, not timed.
    `role` says what the mixture is timed for, `members` how many models run at every step.
    """

    method: str
    role: Role
    members: int
    batch_size: int
    new_tokens: int
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n_rounds: int
    ratio_to_base: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    details: dict[str, Any] = {}


class Goal(Value):
    """What a suite steers, where to, at what cost: metrics by name.

    The first cost is the price: lower is better, it limits how far a method may go and orders what reaches a target.
    The others are shown beside it.  Methods are compared at `targets`, values of the control.
    """

    control: Name = "sentiment"
    direction: Literal["higher", "lower"] = "higher"
    cost: tuple[Name, ...] = Field(default=("perplexity", "acceptability", "distinct_2"), min_length=1)
    targets: tuple[FiniteFloat, ...] = (0.6, 0.7, 0.8, 0.9)

    @property
    def price(self) -> str:
        return self.cost[0]

    @property
    def sign(self) -> int:
        """1 where more is stronger, -1 where less is."""
        return 1 if self.direction == "higher" else -1

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.control, *self.cost)


class AdapterSource(Value):
    """A LoRA adapter as a checkpoint: the suite's name of its base, and PEFT's folder or a name on the hub."""

    base: Name
    adapter: Text


Source = Annotated[
    Annotated[Text, Tag("source")] | Annotated[AdapterSource, Tag("adapter")],
    Discriminator(lambda value: "adapter" if isinstance(value, (dict, AdapterSource)) else "source"),
]


class Suite(Value):
    """What to benchmark: checkpoints, prompts, sampling, methods, evaluators; and, if asked for, what they cost.

    Each of several goals has a board of its own.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    title: Text = ""
    description: Text = ""
    checkpoints: dict[Name, Source]
    prompts: dict[Name, PromptSource]
    chat: bool = False
    system: Text = ""
    sampling: Sampling = Sampling()
    methods: tuple[MethodSpec, ...]
    evaluators: tuple[EvaluatorSpec, ...] = ()
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    finetune: FinetuneSpec | None = None
    overhead: OverheadSpec | None = None
    goal: tuple[Goal, ...] = Field(default=(Goal(),), min_length=1)

    @field_validator("goal", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, (list, tuple)) else (value,)

    @model_validator(mode="after")
    def _system_is_for_chat(self) -> "Suite":
        if self.system and not self.chat:
            raise ValueError("system is the text before a chat's first turn; it needs chat: true")
        return self

    @property
    def checkpoint_names(self) -> tuple[str, ...]:
        """Those given and those that are fine-tuned."""
        return (*self.checkpoints, *(self.finetune.experts if self.finetune else ()))
