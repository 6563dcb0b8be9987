"""The overhead ledger: what each method of a suite costs, in time and memory, over the base.

One engine, one thread of work.  First a fresh engine for every shape of mixture: start-up and memory.  Then rounds, by
turns for every batch size and output length: base, every subject once, base again; each is served (timed: the switch),
warmed up with a few steps, timed for one token a row and for all.  `bench.overhead.estimate` turns rounds into ratios.

Order and random numbers are drawn anew: what a subject gains or loses by the one before it, or by luck (a draw outside
the nucleus is repeated, which takes 1 % of a short call), averages out over rounds and shows in the noise floor.
"""

import gc
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.collector import paused, set_aside
from bench.overhead.drafting import Acceptance
from bench.overhead.energy import NO_METER, Meter, find_meter, gpus_in_use
from bench.overhead.estimate import Round, Timing, is_narrow, time_per_output_token
from bench.overhead.ledger import Cell, Fresh, Ledger, records
from bench.overhead.machine import LoadWatch, Machine, machine
from bench.overhead.model import measure_rates, shape_of
from bench.overhead.subjects import AGAIN, Subject, batch_of, choose_subjects
from bench.progress import Advance, Task
from bench.registry import Registry
from bench.schema import OverheadRecord, OverheadSpec, Point, Prompt, Recipe, Sampling, Suite, UserError
from bench.serving import Drafting, Engine, ServedModel
from bench.store.read import Reader
from bench.suite.checkpoints import Checkpoint

Clock = Callable[[], float]

LEAST_ROUNDS = 3  # done even where the budget is spent
PREDICTED_AT = 64  # prompts at most, behind which a draft and its ensemble are compared
MOST_TIMES = 5  # at most this many times the asked rounds
START_UP_SHARE = 0.4  # of the rounds' budget, which fresh engines may take before it
WARM_UP = 4  # tokens a row: the first steps on other memory (members after mixed weights) are up to 5 % slower


def time_suite(
    suite: Suite,
    spec: OverheadSpec,
    points: Sequence[Point],
    methods: Registry[Any],
    prompts: Sequence[Prompt],
    checkpoints: Mapping[str, Checkpoint],
    open_engine: Callable[[], Engine],
    device: str,
    task: Task,
) -> list[OverheadRecord]:
    """Time a suite's methods on one engine.  Nothing else of this process may be at work meanwhile."""
    subjects = choose_subjects(points, methods, list(checkpoints))
    shape = shape_of(checkpoints["base"], suite.dtype)
    meter = find_meter(device, gpus_in_use())
    stopwatch = Stopwatch(
        open_engine, subjects, prompts, suite.sampling, spec, machine(device), time.perf_counter, meter
    )
    ledger = stopwatch.record(task)
    return records(ledger, shape, measure_rates(device, suite.dtype, shape.parameters))


def is_timed(store: Reader, suite_id: int, engine: str) -> bool:
    """Whether the suite has a ledger of its own on this engine, beside what was imported."""
    return any(record.method == AGAIN for record in store.overhead_records(suite_id, engine))


@dataclass
class Stopwatch:
    """Records a ledger.  Clock, machine, meter and engines are given, so that tests can make time themselves."""

    open_engine: Callable[[], Engine]
    subjects: Sequence[Subject]
    prompts: Sequence[Prompt]
    sampling: Sampling
    spec: OverheadSpec
    machine: Machine
    clock: Clock
    meter: Meter = NO_METER

    def __post_init__(self) -> None:
        self.base, *self.others = self.subjects
        self.ledger = Ledger(
            self.subjects, price=self.spec.price, power=self.meter.source, no_joules=self.meter.why_not
        )
        self.rng = random.Random(self.sampling.seed)

    @property
    def cells(self) -> list[Cell]:
        return [(batch, length) for length in self.spec.new_tokens for batch in self.spec.batch_sizes]

    def record(self, task: Task) -> Ledger:
        """Time everything.  Raises UserError where a prompt and its tokens do not fit the model."""
        watch = LoadWatch()
        recipes = list(dict.fromkeys(_shape_key(s.recipe) for s in self.ledger.subjects))
        with set_aside():
            with self.machine.exact(), task("Timing start-up", len(recipes)) as advance:
                self._start_up(self.clock() + START_UP_SHARE * self.spec.budget_s, advance)
            with task("Timing rounds", len(self.cells) * self.spec.rounds) as advance:
                self._all_rounds(self.clock() + self.spec.budget_s, advance)
        self.ledger.load = watch.facts()
        return self.ledger

    # ------------------------------------------------------------------------------------------ fresh engines

    def _start_up(self, deadline: float, advance: Advance) -> None:
        """One engine for every shape of mixture; shapes that come after the deadline stay unknown.

        The process' first engine does not count: it also loads libraries.
        """
        self._in_fresh_engine(self.base.recipe)
        found: dict[Any, Fresh] = {}
        for subject in self.ledger.subjects:
            shape = _shape_key(subject.recipe)
            if shape not in found:
                if found and self.clock() > deadline:
                    continue
                found[shape] = self._in_fresh_engine(subject.recipe)
                advance(1)
            self.ledger.fresh[subject.name] = found[shape]

    def _in_fresh_engine(self, recipe: Recipe) -> Fresh:
        gc.collect()  # the last engine's cycles
        before = self.machine.memory_bytes()
        started = self.clock()
        engine = self.open_engine()
        try:
            model = engine.serve(recipe)
            self._draw(model, (1, 1), self.sampling.seed)
            self.machine.synchronize()
            start_up_s = self.clock() - started
            self._require_room(engine, model)
            held = self.machine.memory_bytes()
            self.machine.reset_peak()
            model = engine.serve(recipe)
            self.machine.synchronize()
            switching = _difference(self.machine.peak_bytes(), held)
            peaks = {cell: self._peak(model, cell, before) for cell in self.cells}
        finally:
            engine.close()
        return Fresh(start_up_s, switching, peaks)

    def _peak(self, model: ServedModel, cell: Cell, before: int | None) -> int | None:
        self.machine.memory_bytes()  # gives back what earlier cells left
        self.machine.reset_peak()
        self._draw(model, cell, self.sampling.seed)
        return _difference(self.machine.peak_bytes(), before)

    def _require_room(self, engine: Engine, model: ServedModel) -> None:
        rows = batch_of(self.prompts, min(len(self.prompts), max(self.spec.batch_sizes)))
        lengths = [len(model.token_ids(prompt.text)) for prompt in rows]
        self.ledger.mean_prompt_tokens = sum(lengths) / len(lengths)
        needed = max(lengths) + max(self.spec.new_tokens)
        if needed > engine.context_length():
            raise UserError(
                f"overhead: a prompt of {max(lengths)} tokens and {max(self.spec.new_tokens)} new ones exceed the "
                f"model's context of {engine.context_length()}; ask for fewer with --new-tokens"
            )

    # ------------------------------------------------------------------------------------------ rounds

    def _all_rounds(self, deadline: float, advance: Advance) -> None:
        """A round of every cell in turn until each has enough, after a first one that does not count."""
        engine = self.open_engine()
        self.ledger.rounds = {cell: [] for cell in self.cells}
        try:
            for subject in self.others:
                if subject.recipe.draft is not None:
                    self.ledger.drafts[subject.name] = Acceptance(self._predicted(engine.serve(subject.recipe)))
            for cell in self.cells:
                self._round(engine, cell)
            waiting = deque(self.cells)
            gc.collect()
            with paused():
                while waiting:
                    cell = waiting.popleft()
                    rounds = self.ledger.rounds[cell]
                    if self._enough(rounds, cell, self.clock() > deadline):
                        continue
                    gc.collect(1)  # the young: collecting all takes longer than many a round
                    rounds.append(self._round(engine, cell))
                    waiting.append(cell)
                    if len(rounds) <= self.spec.rounds:
                        advance(1)
        finally:
            engine.close()

    def _predicted(self, model: ServedModel) -> float:
        """Which share of drafts is accepted, by the first token behind some prompts."""
        assert isinstance(model, Drafting)
        return model.overlap([prompt.text for prompt in self.prompts[:PREDICTED_AT]], self.sampling)

    def _enough(self, rounds: Sequence[Round], cell: Cell, late: bool) -> bool:
        """Whether every ratio is narrow, or as narrow as the budget allows."""
        if len(rounds) < self.spec.rounds:
            return late and len(rounds) >= LEAST_ROUNDS
        if late or len(rounds) >= MOST_TIMES * self.spec.rounds:
            return True
        names = [subject.name for subject in self.others]
        return is_narrow(rounds, names, time_per_output_token(cell[1]), self.spec.precision)

    def _round(self, engine: Engine, cell: Cell) -> Round:
        """The base, every other subject in a random order, the base."""
        opening = self._timing(engine, self.base, cell)
        order = self.rng.sample(self.others, len(self.others))
        between = {subject.name: self._timing(engine, subject, cell) for subject in order}
        closing = self._timing(engine, self.base, cell)
        return Round(opening, between, closing)

    def _timing(self, engine: Engine, subject: Subject, cell: Cell) -> Timing:
        """Seconds to switch, to the first token and to all, with one seed: the first token's luck cancels out."""
        batch_size, new_tokens = cell
        seed = self.rng.randrange(2**31)
        started = self.clock()
        model = engine.serve(subject.recipe)
        self.machine.synchronize()
        switch_s = self.clock() - started
        self._draw(model, (batch_size, min(WARM_UP, new_tokens)), seed)
        began = self.clock()
        self._draw(model, (batch_size, 1), seed)
        first = self.clock()
        reading = self.meter.read()
        again = self.clock()
        self._draw(model, cell, seed)
        ended = self.clock()
        joules = self.meter.drawn(reading, ended - again)
        if isinstance(model, Drafting):
            self.ledger.drafts[subject.name].count(cell, model)
        return Timing((began + ended) / 2, switch_s, first - began, ended - again, joules)

    def _draw(self, model: ServedModel, cell: Cell, seed: int) -> None:
        batch_size, new_tokens = cell
        sampling = self.sampling.model_copy(update={"samples": 1, "max_new_tokens": new_tokens, "seed": seed})
        drawn = model.decode(batch_of(self.prompts, batch_size), sampling)
        if drawn != batch_size * new_tokens:
            raise RuntimeError(f"the engine drew {drawn} tokens instead of {batch_size} x {new_tokens}")


def _difference(value: int | None, before: int | None) -> int | None:
    return None if value is None or before is None else max(0, value - before)


def _shape_key(recipe: Recipe) -> tuple[str, tuple[str, ...], str]:
    """Mixtures alike in this cost alike: the numbers do not matter."""
    special = [recipe.filter_p, recipe.plausible, recipe.rule and recipe.rule.name, recipe.steering, recipe.prefixes,
               recipe.draft and recipe.draft.k]  # fmt: skip
    return recipe.space, tuple(recipe.coefficients), repr(special)
