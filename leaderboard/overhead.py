"""Pure: the overhead ledger's lines -> the tables of the overhead page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leaderboard.rank import Derived

SHOWN = "time_per_output_token_s"
DETAILS = (
    ("time_to_first_token_s", "First token", 1e3, "ms"),
    ("time_per_output_token_s", "Each further token", 1e3, "ms"),
    ("tokens_per_s", "Throughput", 1.0, "tokens/s"),
    ("peak_memory_bytes", "Peak memory", 2**-20, "MiB"),
    ("amortisation_tokens", "Mixing has paid off after", 1.0, "tokens"),
    ("roofline_s_per_token", "Least time by the model", 1e3, "ms a token"),
)


@dataclass(frozen=True)
class Cost:
    """One method at one batch size and length: its time per token over the base's, and the details behind it."""

    method: str
    ratio: Derived
    within_floor: bool
    details: Mapping[str, float | None]


@dataclass(frozen=True)
class Cell:
    """One batch size and output length; `busy` where other programs used the machine while it was timed."""

    batch_size: int
    new_tokens: int
    busy: bool
    costs: tuple[Cost, ...]

    @property
    def widest(self) -> float:
        return max((c.ratio.high or c.ratio.value or 0.0 for c in self.costs), default=0.0)


def cells(lines: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """By output length and batch size; methods in the order they were timed."""
    places = sorted({(line["new_tokens"], line["batch_size"]) for line in lines if line["metric"] == SHOWN})
    return [_cell([x for x in lines if (x["new_tokens"], x["batch_size"]) == place]) for place in places]


def _cell(lines: Sequence[Mapping[str, Any]]) -> Cell:
    methods = dict.fromkeys(line["method"] for line in lines)
    return Cell(
        batch_size=lines[0]["batch_size"],
        new_tokens=lines[0]["new_tokens"],
        busy=any(line["busy"] for line in lines),
        costs=tuple(_cost(method, [x for x in lines if x["method"] == method]) for method in methods),
    )


def _cost(method: str, lines: Sequence[Mapping[str, Any]]) -> Cost:
    by_metric = {line["metric"]: line for line in lines}
    shown = by_metric.get(SHOWN, {})
    ratio = Derived(
        shown.get("ratio_to_base"), shown.get("ratio_low"), shown.get("ratio_high"), shown.get("n_rounds") or 0
    )
    scaled = {metric: _scaled(by_metric.get(metric, {}).get("value"), scale) for metric, _, scale, _ in DETAILS}
    return Cost(method, ratio, bool(shown.get("within_floor")), scaled)


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


def once(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, float | None, float | None]]:
    """What depends on no batch: (method, seconds to switch to its point, bytes the switch needs)."""
    switches = {x["method"]: x["value"] for x in lines if x["metric"] == "switch_s"}
    memory = {x["method"]: x["value"] for x in lines if x["metric"] == "switch_memory_bytes"}
    return [(method, seconds, memory.get(method)) for method, seconds in switches.items()]
