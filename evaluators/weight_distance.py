"""Distance between two checkpoints by tensor (arXiv 2211.12092, figure 9): ||a - b|| / sqrt(number of elements)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Estimate, Metric, UserError
from bench.suite.checkpoints import WEIGHTS, Checkpoint, header, parameter_name
from evaluators.base import CheckpointEvaluator, Judgement

UNIT = "root mean square"
DESCRIPTION = "norm of the difference / sqrt(number of elements)"


class WeightDistance(CheckpointEvaluator):
    """`weight_distance[PAIR][TENSOR]` for each pair `a:b` of checkpoints and each tensor, and `weight_distance[PAIR]`
    for all their elements together.

    A tensor has its name in the whole model, so that a figure can lay out layers and parameters.  Differences are
    taken in float32 and summed in float64.  Exact, so without an interval; n_total counts elements.
    """

    source = "arXiv 2211.12092, section 5.2 and figure 9"
    pairs: tuple[str, ...] = Field(
        default=("expert:base", "antiexpert:base", "expert:antiexpert"),
        min_length=1,
        description="names joined by a colon",
    )

    def metrics(self) -> tuple[Metric, ...]:
        """The overall ones; those of single tensors are named after the tensors that the checkpoints have."""
        return tuple(self._metric(f"weight_distance[{pair}]") for pair in self.pairs)

    def inspect(self, checkpoints: Mapping[str, Checkpoint], advance: Advance = silent) -> Judgement:
        estimates = [estimate for pair in self.pairs for estimate in self._pair(pair, checkpoints)]
        declared = {metric.name for metric in self.metrics()}
        metrics = [
            Metric(name=e.metric, unit=UNIT, description=DESCRIPTION) for e in estimates if e.metric not in declared
        ]
        return Judgement(estimates=estimates, metrics=metrics)

    def require(self, names: Sequence[str]) -> None:
        for pair in self.pairs:
            parts = pair.split(":")
            if len(parts) != 2 or any(part not in names for part in parts):
                known = ", ".join(names)
                raise UserError(f"weight_distance: pairs: expected two of the checkpoints {known} as a:b, got {pair!r}")

    def _pair(self, pair: str, checkpoints: Mapping[str, Checkpoint]) -> Iterator[Estimate]:
        a, b = (checkpoints[name] for name in pair.split(":"))
        squares, elements = 0.0, 0
        for tensor, square, n in squared_distances(a, b):
            squares, elements = squares + square, elements + n
            yield self._estimate(f"weight_distance[{pair}][{tensor}]", square, n)
        yield self._estimate(f"weight_distance[{pair}]", squares, elements)

    def _estimate(self, name: str, square: float, n: int) -> Estimate:
        return Estimate(metric=self.named(name), prompts=None, value=math.sqrt(square / n), n_scored=n, n_total=n)

    def _metric(self, name: str) -> Metric:
        return self.metric(name, "neutral", UNIT, DESCRIPTION)


def squared_distances(a: Checkpoint, b: Checkpoint) -> Iterator[tuple[str, float, int]]:
    """(tensor, ||a - b||^2, number of elements) by name, one tensor in memory at a time.

    Raises UserError where the checkpoints' tensors differ in name or shape.
    """
    import torch

    shapes, others = header(a), header(b)
    if shapes != others:
        different = sorted(name for name in shapes.keys() | others.keys() if shapes.get(name) != others.get(name))
        raise UserError(f"checkpoints {a.source} and {b.source} differ in the shape of {different[0]}")
    left, right = _places(a), _places(b)
    for name in sorted(shapes):
        difference = left[name]().float() - right[name]().float()
        yield name, float(difference.square().sum(dtype=torch.float64)), difference.numel()


def _places(checkpoint: Checkpoint) -> dict[str, Callable[[], Any]]:
    """Parameter -> what reads it from its file."""
    from safetensors import safe_open

    opened = [safe_open(path, framework="pt") for path in sorted(checkpoint.path.glob(WEIGHTS))]
    places = ((parameter_name(tensor), partial(file.get_tensor, tensor)) for file in opened for tensor in _names(file))
    return {name: read for name, read in places if name is not None}


def _names(file: Any) -> list[str]:
    return list(file.keys())
