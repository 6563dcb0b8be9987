"""What a run is cut into: units of work that any worker may do, and the events that come of them.

A unit names a point by its position in the work and an evaluator by its place there, so that it is small to send: a
worker holds the same `Work`.  An event is ready to be stored; whoever keeps it needs no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.schema import Completion, Estimate, Metric, Prompt, TensorDistance
from bench.stats import RatioStatistic, ScoreColumn


@dataclass(frozen=True)
class Piece:
    """The `index`-th of `of` parts of a point's prompts, cut between the engine's batches."""

    index: int = 0
    of: int = 1


@dataclass(frozen=True)
class Serve:
    """Serve a point's mixture: complete a piece of the prompts, or none, and let evaluators probe it."""

    position: int
    piece: Piece | None
    probes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Judge:
    """Let one evaluator judge the stored completions of a point."""

    position: int
    evaluator: int


@dataclass(frozen=True)
class Inspect:
    """Let one evaluator compare the checkpoints; the verdict stands at the suite's first point."""

    evaluator: int
    position: int = 0


Unit = Serve | Judge | Inspect


@dataclass(frozen=True)
class Survived:
    """The share of the update to the base's weights that is left after rounding to the served dtype."""

    share: float


@dataclass(frozen=True)
class Completed:
    """The completions of a piece, by prompt of the whole work, then sample; and the seconds they took."""

    completions: Sequence[Completion]
    duration_s: float


@dataclass(frozen=True)
class Verdict:
    """What an evaluator found, with its intervals: `metrics` are described, `items` are the rows of `statistics`."""

    evaluator: int
    metrics: Sequence[Metric]
    scores: Mapping[str, ScoreColumn]
    statistics: Sequence[RatioStatistic]
    items: Sequence[Prompt]
    estimates: Sequence[Estimate]
    distances: Sequence[TensorDistance]
    duration_s: float


@dataclass(frozen=True)
class Broken:
    """What broke in a plugin's evaluator, and where."""

    evaluator: int
    what: str


@dataclass(frozen=True)
class Failed:
    """Why nothing comes of the unit: its point fails, and the others go on."""

    why: str


Event = Survived | Completed | Verdict | Broken | Failed
