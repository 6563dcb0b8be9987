"""The ledger on the terminal: what each method costs a token, over the base, with its interval and its verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from bench.schema import Number, OverheadRecord
from leaderboard import numbers

MAIN = "time_per_output_token_s"
MONEY, JOULES = "money_per_million_tokens", "joules_per_million_tokens"
ACCEPTANCE, SPEED_UP = "draft_acceptance", "draft_speed_up"
Lines = Mapping[tuple[str, int, int, str], OverheadRecord]


def cost_table(records: Sequence[OverheadRecord], batch_size: int, new_tokens: int, title: str) -> Table:
    """One batch size and output length: times, ratio to the base, the simple model's ratio, memory."""
    lines: Lines = {(r.method, r.batch_size, r.new_tokens, r.metric): r for r in records}
    spent = {r.metric: r for r in records if r.metric in (MONEY, JOULES) and r.value is not None}
    units = {metric: r.details["currency"] if metric == MONEY else "J" for metric, r in sorted(spent.items())}
    table = Table("method", "rounds", "first token", "a token", "over base", "model", "tokens/s", "switch",
                  "peak memory", "pays off after", *(f"{unit} / M tokens" for unit in units.values()),
                  title=title, title_justify="left")  # fmt: skip
    for record in records:
        if (record.batch_size, record.new_tokens, record.metric) == (batch_size, new_tokens, MAIN):
            table.add_row(*map(Text, _cells(record, lines, list(units))))  # text: brackets are no markup
    return table


def _cells(main: OverheadRecord, lines: Lines, spent: Sequence[str]) -> list[str]:
    def of(metric: str, *, everywhere: bool = False) -> OverheadRecord | None:
        cell = (0, 0) if everywhere else (main.batch_size, main.new_tokens)
        return lines.get((main.method, *cell, metric))

    model = of("roofline_s_per_token")
    return [
        main.method,
        str(main.n_rounds),
        cell(of("time_to_first_token_s"), 1e3, "ms"),
        cell(main, 1e3, "ms"),
        ratio(main),
        "" if model is None or model.ratio_to_base is None else numbers.number(model.ratio_to_base),
        cell(of("tokens_per_s"), 1, ""),
        cell(of("switch_s", everywhere=True), 1e3, "ms"),
        cell(of("peak_memory_bytes"), 2**-20, "MiB"),
        cell(of("amortisation_tokens"), 1, "tokens"),
        *(cell(of(metric), 1, "") for metric in spent),
    ]


def ratio(record: OverheadRecord) -> str:
    """`2.81 (2.77 to 2.86)`, and `= base` where it lies inside the noise floor."""
    if record.ratio_to_base is None or record.ratio_low is None:
        return ""
    verdict = " = base" if record.details.get("within_floor") else ""
    return numbers.shown(Number(record.ratio_to_base, record.ratio_low, record.ratio_high)) + verdict


def cell(record: OverheadRecord | None, scale: float, unit: str) -> str:
    if record is None or record.value is None:
        return ""
    return f"{numbers.number(record.value * scale)} {unit}".strip()


def remarks(records: Sequence[OverheadRecord]) -> list[str]:
    """The noise floor, what drafts are worth, and a warning where other programs were busy."""
    main = [r for r in records if r.metric == MAIN]
    floors = {(r.batch_size, r.new_tokens): r.details["floor"] for r in main if "floor" in r.details}
    lines = [f"noise floor at batch {batch}, {length} tokens: base over base {numbers.between(Number(1, low, high))}"
             for (batch, length), (low, high) in floors.items()]  # fmt: skip
    shares = {(r.method, r.batch_size, r.new_tokens): r for r in records if r.metric == ACCEPTANCE}
    for quick in (r for r in records if r.metric == SPEED_UP):
        share = shares[quick.method, quick.batch_size, quick.new_tokens]
        accepted, expected = (numbers.number(x) for x in (share.value, share.details["predicted"]))
        times = numbers.shown(Number(quick.value, quick.low, quick.high))
        lines.append(
            f"{quick.method} at batch {quick.batch_size}, {quick.new_tokens} tokens: {accepted} of drafts accepted "
            f"({expected} predicted), {times} times as quick as {quick.details['against']} "
            f"({numbers.number(quick.details['predicted'])} predicted)"
        )
    absent = {r.details["reason"]: None for r in records if r.metric == JOULES and r.value is None}
    lines += [f"no joules: {reason}" for reason in absent]
    facts: Mapping[str, Any] = main[0].details if main else {}
    if facts.get("busy"):
        lines.append(
            f"this machine was busy (load {facts['load_average']:.1f} before, others took {facts['others_cores']} of "
            f"{facts['cores']} cores): do not draw conclusions from these times"
        )
    return lines
