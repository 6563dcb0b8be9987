"""Distance between two checkpoints by tensor (arXiv 2211.12092, figure 9): ||a - b|| / sqrt(number of elements)."""

import math
from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from bench.progress import Advance, silent
from bench.schema import Estimate, Metric, TensorDistance, UserError
from bench.suite.checkpoints import Checkpoint, header, open_tensors
from evaluators.base import CheckpointEvaluator, Judgement

UNIT = "root mean square"
DESCRIPTION = "norm of the difference / sqrt(number of elements)"


class WeightDistance(CheckpointEvaluator):
    """`weight_distance[PAIR]` over all elements of each pair `a:b` of checkpoints, and one row a tensor.

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
        return tuple(self.metric(f"weight_distance[{pair}]", "neutral", UNIT, DESCRIPTION) for pair in self.pairs)

    def inspect(self, checkpoints: Mapping[str, Checkpoint], advance: Advance = silent) -> Judgement:
        distances: list[TensorDistance] = []
        estimates = []
        for pair in self.pairs:
            a, b = (checkpoints[name] for name in pair.split(":"))
            squares, elements = 0.0, 0
            for tensor, square, n in squared_distances(a, b):
                squares, elements = squares + square, elements + n
                distances.append(TensorDistance(pair=pair, tensor=tensor, elements=n, distance=math.sqrt(square / n)))
            metric = self.named(f"weight_distance[{pair}]")
            overall = math.sqrt(squares / elements)
            estimates.append(Estimate(metric=metric, prompts=None, value=overall, n_scored=elements, n_total=elements))
        return Judgement(estimates=estimates, distances=distances)

    def require(self, names: Sequence[str]) -> None:
        for pair in self.pairs:
            parts = pair.split(":")
            if len(parts) != 2 or any(part not in names for part in parts):
                known = ", ".join(names)
                raise UserError(f"weight_distance: pairs: expected two of the checkpoints {known} as a:b, got {pair!r}")


def squared_distances(a: Checkpoint, b: Checkpoint) -> Iterator[tuple[str, float, int]]:
    """(tensor, ||a - b||^2, number of elements) by name, one tensor in memory at a time.

    Raises UserError where the checkpoints' tensors differ in name or shape.
    """
    import torch

    shapes, others = header(a), header(b)
    if shapes != others:
        different = sorted(name for name in shapes.keys() | others.keys() if shapes.get(name) != others.get(name))
        raise UserError(f"checkpoints {a.source} and {b.source} differ in the shape of {different[0]}")
    left, right = open_tensors(a.path), open_tensors(b.path)
    for name in sorted(shapes):
        difference = left[name]().float() - right[name]().float()
        yield name, float(difference.square().sum(dtype=torch.float64)), difference.numel()
