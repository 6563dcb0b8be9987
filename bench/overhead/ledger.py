"""Pure: what was recorded -> the records that are stored, one a mixture, cell and metric.

A cell is a batch size and an output length; what depends on neither (start-up, switching) stands in the cell (0, 0).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.engines.drafting import times_as_quick
from bench.overhead.drafting import Acceptance
from bench.overhead.estimate import (
    Quantity,
    Round,
    amortisation,
    joules_per_million_tokens,
    measured,
    median_interval,
    money_per_million_tokens,
    noise_floor,
    ratios_to_base,
    switch,
    time_per_output_token,
    time_to_first_token,
    tokens_per_second,
    within,
)
from bench.overhead.model import Rates, Shape, step_cost
from bench.overhead.subjects import BASE, Subject, plain_of
from bench.schema import OverheadRecord, Price

Cell = tuple[int, int]  # batch size, new tokens
MONEY, JOULES = "money_per_million_tokens", "joules_per_million_tokens"
ACCEPTANCE, SPEED_UP = "draft_acceptance", "draft_speed_up"
NO_CELL: Cell = (0, 0)


@dataclass(frozen=True)
class Fresh:
    """A mixture's first use in an engine of its own: seconds to the first token, bytes over the process before."""

    start_up_s: float
    switch_memory_bytes: int | None
    peak_memory_bytes: Mapping[Cell, int | None]


@dataclass
class Ledger:
    """Everything that was recorded, before any statistics."""

    subjects: Sequence[Subject]
    fresh: dict[str, Fresh] = field(default_factory=dict)  # by subject
    rounds: dict[Cell, list[Round]] = field(default_factory=dict)
    drafts: dict[str, Acceptance] = field(default_factory=dict)  # by subject
    load: dict[str, Any] = field(default_factory=dict)
    mean_prompt_tokens: float = 0.0
    price: Price | None = None
    power: str = ""  # what counted the joules
    no_joules: str = "no power reading"  # why a cell has none

    @property
    def copies(self) -> list[str]:
        """Subjects that are the base itself, served after another mixture: base against base."""
        base, *others = self.subjects
        return [subject.name for subject in others if subject.recipe == base.recipe]


def records(ledger: Ledger, shape: Shape, rates: Rates) -> list[OverheadRecord]:
    """What is stored: one record a subject, cell and metric; see docs/OVERHEAD.md for the metrics."""
    found = [record for subject in ledger.subjects for record in _fresh_records(ledger, subject)]
    for cell in ledger.rounds:
        for subject in ledger.subjects:
            found += _timed_records(ledger, subject, cell) + _spent_records(ledger, subject, cell)
            found.append(_roofline_record(ledger, subject, cell, shape, rates))
            if subject.name in ledger.drafts:
                found += _draft_records(ledger, subject, cell)
        found += _amortisation_records(ledger, cell)
    return found + _switch_records(ledger)


def _timed_records(ledger: Ledger, subject: Subject, cell: Cell) -> list[OverheadRecord]:
    batch_size, new_tokens = cell
    metrics: dict[str, Quantity] = {
        "time_to_first_token_s": time_to_first_token,
        "time_per_output_token_s": time_per_output_token(new_tokens),
        "tokens_per_s": tokens_per_second(batch_size * new_tokens),
    }
    return [_timed(ledger, subject, cell, ledger.rounds[cell], name, q) for name, q in metrics.items()]


def _spent_records(ledger: Ledger, subject: Subject, cell: Cell) -> list[OverheadRecord]:
    """Money where the suite names a price; joules, or why they are not known: all of a cell's timings or none."""
    tokens, rounds, found = cell[0] * cell[1], ledger.rounds[cell], []
    if ledger.price is not None:
        quantity = money_per_million_tokens(tokens, ledger.price.per_hour)
        found.append(_timed(ledger, subject, cell, rounds, MONEY, quantity, ledger.price.model_dump()))
    if all(timing.joules is not None for one in rounds for timing in one.timings):
        quantity = joules_per_million_tokens(tokens)
        found.append(_timed(ledger, subject, cell, rounds, JOULES, quantity, {"power": ledger.power}))
    else:
        found.append(_single(ledger, subject, cell, JOULES, None, None, ledger.no_joules))
    return found


def _switch_records(ledger: Ledger) -> list[OverheadRecord]:
    """Over the rounds of all cells: switching does not depend on them."""
    rounds = [one for rounds in ledger.rounds.values() for one in rounds]
    return [_timed(ledger, subject, NO_CELL, rounds, "switch_s", switch) for subject in ledger.subjects]


def _timed(
    ledger: Ledger, subject: Subject, cell: Cell, rounds: Sequence[Round], metric: str, quantity: Quantity,
    more: Mapping[str, Any] = {},
) -> OverheadRecord:  # fmt: skip
    is_base = subject.name == BASE
    found = measured(rounds, None if is_base else subject.name, quantity)
    floor = noise_floor([x for name in ledger.copies for x in ratios_to_base(rounds, name, quantity)])
    details = {
        "floor": [_short(x) for x in floor],
        "within_floor": within(found.ratio, floor),
        "samples": [_short(x) for x in found.samples],
        "ratios": [_short(x) for x in found.ratios],
        **more,
    }
    return _record(
        ledger, subject, cell, metric, found.median.value, details,
        low=found.median.low, high=found.median.high, n_rounds=found.median.n_total, ratio_to_base=found.ratio.value,
        ratio_low=None if is_base else found.ratio.low, ratio_high=None if is_base else found.ratio.high,
    )  # fmt: skip


def _fresh_records(ledger: Ledger, subject: Subject) -> list[OverheadRecord]:
    """Start-up and memory: one measurement each, so no interval."""
    fresh, base = ledger.fresh.get(subject.name), ledger.fresh[BASE]
    if fresh is None:
        reason = "the time budget was spent before this mixture had an engine of its own"
        return [_single(ledger, subject, NO_CELL, "start_up_s", None, None, reason)]
    return [
        _single(ledger, subject, NO_CELL, "start_up_s", fresh.start_up_s, base.start_up_s),
        _single(ledger, subject, NO_CELL, "switch_memory_bytes", fresh.switch_memory_bytes, base.switch_memory_bytes),
        *(_single(ledger, subject, cell, "peak_memory_bytes", peak, base.peak_memory_bytes[cell])
          for cell, peak in fresh.peak_memory_bytes.items()),
    ]  # fmt: skip


def _single(ledger: Ledger, subject: Subject, cell: Cell, metric: str, value: float | None, base: float | None,
            unknown: str = "unknown on this machine") -> OverheadRecord:  # fmt: skip
    """A value without rounds, or why it is `unknown`.  Its ratio is None where the base's is unknown or zero."""
    details = {"reason": unknown} if value is None else {}
    ratio = value / base if value is not None and base else None
    return _record(ledger, subject, cell, metric, value, details, n_rounds=int(value is not None), ratio_to_base=ratio)


def _roofline_record(ledger: Ledger, subject: Subject, cell: Cell, shape: Shape, rates: Rates) -> OverheadRecord:
    """The model's least time of a decoding step; `n_rounds` is 0, since nothing was run."""
    batch_size, new_tokens = cell
    context = ledger.mean_prompt_tokens + new_tokens / 2
    cost = step_cost(shape, subject.recipe.models_per_token, batch_size, context)
    seconds, base = cost.least_s(rates), step_cost(shape, 1, batch_size, context).least_s(rates)
    details = {"flops": cost.flops, "bytes": cost.bytes, **vars(rates)}
    return _record(
        ledger, subject, cell, "roofline_s_per_token", seconds, details, n_rounds=0, ratio_to_base=seconds / base
    )


def _amortisation_records(ledger: Ledger, cell: Cell) -> list[OverheadRecord]:
    """Each mixture of weights against the suite's first ensemble; none where the suite has no ensemble."""
    methods = [subject for subject in ledger.subjects if subject.role == "method"]
    ensemble = next((s for s in methods if s.recipe.models_per_token > 1), None)
    if ensemble is None:
        return []
    found = []
    for subject in methods:
        if subject.recipe.space == "weights" and len(subject.recipe.coefficients) > 1:
            result = amortisation(ledger.rounds[cell], subject.name, ensemble.name, *cell)
            details = {"against": ensemble.name, "reason": result.reason}
            found.append(_record(ledger, subject, cell, "amortisation_tokens", result.value, details, low=result.low,
                                 high=result.high, n_rounds=len(ledger.rounds[cell])))  # fmt: skip
    return found


def _draft_records(ledger: Ledger, subject: Subject, cell: Cell) -> list[OverheadRecord]:
    """The share of drafted tokens that were accepted, and how many times as quick as without the draft; predictions
    stand in the details."""
    acceptance, plain = ledger.drafts[subject.name], plain_of(subject, ledger.subjects)
    assert acceptance.k is not None and plain is not None
    facts = {"k": acceptance.k, "against": plain.name}
    share, rounds, per_token = acceptance.measured(cell), ledger.rounds[cell], time_per_output_token(cell[1])
    why = "too few new tokens to draft any" if acceptance.k else "no number of drafted tokens pays"
    unknown = {} if share is not None else {"reason": why}
    ensemble = measured(rounds, plain.name, per_token).ratio.value
    assert ensemble is not None
    predicted = times_as_quick(acceptance.predicted, acceptance.k, ensemble)
    quick = median_interval([per_token(r.subjects[plain.name]) / per_token(r.subjects[subject.name]) for r in rounds])
    return [
        _record(ledger, subject, cell, ACCEPTANCE, share, facts | {"predicted": acceptance.predicted} | unknown,
                n_rounds=len(rounds)),
        _record(ledger, subject, cell, SPEED_UP, quick.value, facts | {"predicted": predicted},
                low=quick.low, high=quick.high, n_rounds=len(rounds)),
    ]  # fmt: skip


def _record(ledger: Ledger, subject: Subject, cell: Cell, metric: str, value: float | None, details: Mapping[str, Any],
            **numbers: Any) -> OverheadRecord:  # fmt: skip
    """A record with what each says of its mixture and of the machine."""
    facts = {
        "made_by": subject.method,
        "params": dict(subject.params),
        "recipe": subject.recipe.model_dump(mode="json"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        **ledger.load,
    }
    return OverheadRecord(
        method=subject.name, role=subject.role, members=subject.recipe.models_per_token, batch_size=cell[0],
        new_tokens=cell[1], metric=metric, value=value, details={**facts, **details}, **numbers,
    )  # fmt: skip


def _short(value: float) -> float:
    """Six significant digits: raw times in a small record."""
    return float(f"{value:.6g}")
