"""Splice a database's overhead ledgers into a Markdown file, each between the markers of its engine.

python -m tools.overhead_table results.db docs/OVERHEAD.md
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.markdown import table
from bench.schema import Number, OverheadRecord, UserError
from bench.store.read import Reader
from bench.store.values import TimedSuite
from leaderboard.numbers import between, number, shown
from tools.readme import splice_file

MAIN = "time_per_output_token_s"
BASE = "base"


@dataclass(frozen=True)
class Ledger:
    """A suite's lines on one engine."""

    suite: TimedSuite
    records: Sequence[OverheadRecord]

    def sizes(self, new_tokens: int) -> list[int]:
        return sorted({r.batch_size for r in self.records if (r.metric, r.new_tokens) == (MAIN, new_tokens)})

    @property
    def lengths(self) -> list[int]:
        return sorted({r.new_tokens for r in self.records if r.metric == MAIN})

    def line(self, method: str, metric: str, batch_size: int = 0, new_tokens: int = 0) -> OverheadRecord | None:
        place = (method, metric, batch_size, new_tokens)
        return next((r for r in self.records if (r.method, r.metric, r.batch_size, r.new_tokens) == place), None)


def main(arguments: list[str]) -> int:
    return splice_file("tools.overhead_table", arguments, tables)


def tables(store: Reader, database: Path) -> dict[str, str]:
    """One for every engine on which a suite's base was timed."""
    timed = store.timed_suites()
    if not timed:
        raise UserError(f"{database}: nothing was timed; expected what `lerpbench overhead` stores")
    ledgers = [Ledger(t, store.overhead_records(t.suite_id, t.engine)) for t in timed]
    return {f"overhead {ledger.suite.engine}": markdown(ledger) for ledger in ledgers}


def markdown(ledger: Ledger) -> str:
    return "\n\n".join([*(ratios(ledger, length) for length in ledger.lengths), once(ledger), provenance(ledger)])


def ratios(ledger: Ledger, new_tokens: int) -> str:
    """Time a token over the base's, a line for each method and the noise floor below."""
    sizes = ledger.sizes(new_tokens)
    bases = [ledger.line(BASE, MAIN, size, new_tokens) for size in sizes]
    heads = [f"batch {r.batch_size} ({r.n_rounds} rounds)" for r in bases if r is not None]
    floors = [between(Number(1, *r.details["floor"])) for r in bases if r is not None]
    methods = dict.fromkeys(r.method for r in ledger.records if r.metric == MAIN and r.method != BASE)
    rows = [[method, *(_ratio(ledger.line(method, MAIN, size, new_tokens)) for size in sizes)] for method in methods]
    return table([f"{new_tokens} new tokens", *heads], [*rows, ["noise floor", *floors]])


def _ratio(record: OverheadRecord | None) -> str:
    if record is None or record.ratio_to_base is None:
        return ""
    sign = "= " if record.details.get("within_floor") else ""
    return sign + shown(Number(record.ratio_to_base, record.ratio_low, record.ratio_high))


def once(ledger: Ledger) -> str:
    """What switching takes, and after how many tokens of the longest output mixing weights has paid off."""
    length = ledger.lengths[-1]
    sizes = ledger.sizes(length)
    rows = []
    for record in ledger.records:
        if record.metric == "switch_s" and record.value is not None and record.role in ("base", "method"):
            paid = [ledger.line(record.method, "amortisation_tokens", size, length) for size in sizes]
            switch = f"{number(record.value * 1e3)} ms"
            rows.append([record.method, switch, *("" if r is None else _tokens(r) for r in paid)])
    return table(["once", "switch", *(f"tokens until paid off, batch {size}" for size in sizes)], rows)


def _tokens(record: OverheadRecord) -> str:
    return "never" if record.value is None else f"{max(1.0, record.value):,.0f}"


def provenance(ledger: Ledger) -> str:
    """Which command on which machine made the numbers, and who else used it."""
    suite, facts = ledger.suite, ledger.suite.environment
    packages = facts.get("packages", {})
    command = re.sub(r" --(db|site)[ =]\S+", "", suite.command)  # without the files that it wrote
    load = next((r.details for r in ledger.records if r.metric == MAIN), {})
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "transformers", "vllm") if name in packages)
    before = load.get("load_average")
    busy = "; **the machine was busy**" if load.get("busy") else ""
    return (
        f"`{command}` on {facts.get('processor')}, {facts.get('cores')} cores, torch threads: "
        f"{facts.get('threads')}, device: {facts.get('device')}, {versions}, engine {suite.engine}, "
        f"{suite.timed_at[:10]}. Load before: {'unknown' if before is None else format(before, '.1f')}; "
        f"cores that other programs took meanwhile: {load.get('others_cores')}{busy}."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
