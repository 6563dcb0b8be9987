"""A figure of the paper: what it claims, what this board shows in numbers, and the panels that draw it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.schema import Goal, Number
from leaderboard.charts.panel import Panel
from leaderboard.names import title
from leaderboard.read.board import ALL

ABSENT = "Not shown by this database"


@dataclass(frozen=True)
class Finding:
    """One sentence with its number; `holds` None: the data cannot say."""

    text: str
    holds: bool | None = None


@dataclass(frozen=True)
class Claim:
    """What the paper says, for {control} and {price}; `key` is the figure's in addresses and file names."""

    key: str
    title: str
    text: str

    def about(self, goal: Goal) -> "Claim":
        """The claim in the words of a goal."""
        words = {
            "control": goal.control,
            "price": goal.price,
            "Control": title(goal.control),
            "Price": title(goal.price),
        }
        return Claim(self.key, self.title.format(**words), self.text.format(**words))


@dataclass(frozen=True)
class Figure:
    """`panels`: prompt set -> panels; those of ALL stand where a set has none of its own."""

    claim: Claim
    findings: Sequence[Finding]
    panels: Mapping[str, Sequence[Panel]] = field(default_factory=dict)

    def drawn(self, prompts: str = ALL) -> Sequence[Panel]:
        return self.panels.get(prompts, self.panels.get(ALL, ()))


def absent(what: str) -> list[Finding]:
    return [Finding(f"{ABSENT}: {what}.")]


def beyond(x: Number, threshold: float, good: int) -> bool | None:
    """Whether a number lies on the good side of a threshold with its whole interval; None if the interval holds it."""
    if x.low is None or x.high is None or x.low <= threshold <= x.high:
        return None
    return (x.low > threshold) == (good > 0)
