"""What a draft is worth: how many of its tokens are accepted, predicted and then counted."""

from dataclasses import dataclass, field

from bench.serving import Drafting


@dataclass
class Acceptance:
    """Of one subject: the predicted share, and what was counted in each cell."""

    predicted: float
    k: int | None = None  # of what was timed
    counted: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)  # accepted, judged

    def count(self, cell: tuple[int, int], model: Drafting) -> None:
        before = self.counted.get(cell, (0, 0))
        self.counted[cell] = before[0] + model.accepted, before[1] + model.judged
        self.k = model.k

    def measured(self, cell: tuple[int, int]) -> float | None:
        """None where nothing was judged."""
        accepted, judged = self.counted.get(cell, (0, 0))
        return accepted / judged if judged else None
