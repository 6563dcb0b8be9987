"""Does units of work: one engine, opened when it is first needed, and the judges.  Knows no store.

A unit gives the same events whichever worker does it, whatever that worker did before.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from bench.progress import Advance, silent
from bench.run.prepare import NamedEvaluator, Work
from bench.run.units import Broken, Completed, Event, Failed, Inspect, Judge, Piece, Serve, Survived, Unit, Verdict
from bench.schema import Completion, Estimate, Prompt, Recipe, Sampling, UserError
from bench.serving import Engine, NotFiniteError, ServedModel, sweep_of
from bench.stats import RatioStatistic, Summary
from evaluators.base import Answer, Judgement, Samples
from evaluators.judges import Judges

EngineFactory = Callable[[], Engine]


class Worker:
    """Does the units of one work, one at a time."""

    def __init__(self, work: Work, engine_factory: EngineFactory, judges: Judges, room_for_both: bool = False) -> None:
        """room_for_both: the engine stays open while judges run."""
        self.work = work
        self.engine_factory = engine_factory
        self.judges = judges
        self.room_for_both = room_for_both
        self._engine: Engine | None = None
        self._answers: dict[str, Answer] = {}  # of the mixtures beside the points: each is served and asked once
        self._coming: dict[int, str] = {}  # position -> sweep, of whole points that are known to be asked for
        self._ahead: dict[int, Completed] = {}  # by position: completed together with an earlier point

    def expect(self, units: Sequence[Unit]) -> None:
        """These will come: points of one sweep may then be completed together, which changes nothing but the time."""
        whole = [u.position for u in units if isinstance(u, Serve) and u.piece == Piece()]
        sweeps = {position: sweep_of(self.work.points[position].recipe) for position in whole}
        self._coming = {position: sweep for position, sweep in sweeps.items() if sweep is not None}

    def do(self, unit: Unit, samples: Samples | None = None, advance: Advance = silent) -> Iterator[Event]:
        """What comes of a unit, as it comes; `samples`: what a `Judge` is to judge."""
        match unit:
            case Serve():
                yield from self._serve(unit, advance)
            case Judge() if samples is not None:
                if not self.room_for_both:
                    self.close()
                evaluator = self.work.evaluators[unit.evaluator].evaluator
                judging = partial(evaluator.judge, samples, self.judges, advance)
                yield self._verdict(unit.evaluator, judging, samples.prompts)
            case Inspect():
                evaluator = self.work.evaluators[unit.evaluator].evaluator
                yield self._verdict(unit.evaluator, partial(evaluator.inspect, self.work.checkpoints))
                advance(1)
            case _:
                raise ValueError(f"{unit} without samples")

    def does_alone(self, unit: Serve) -> bool:
        """Whether the unit would not be completed here together with others of its sweep, as far as is known."""
        if unit.position not in self._coming:
            return unit.position not in self._ahead
        return self._engine is not None and self._engine.mixtures_per_batch(*self._asked) == 1

    def close(self) -> None:
        """Give the engine's memory back."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
            self._answers.clear()
            self._ahead.clear()

    # ------------------------------------------------------------------------------------------ served mixtures

    def _serve(self, unit: Serve, advance: Advance) -> Iterator[Event]:
        """A mixture that is no model fails its point and stops nothing else; the next run tries it again."""
        try:
            yield from self._served(unit, advance)
        except NotFiniteError as error:
            yield Failed(str(error))
        if unit.piece is None:
            advance(1)

    def _served(self, unit: Serve, advance: Advance) -> Iterator[Event]:
        recipe = self.work.points[unit.position].recipe
        engine = self._opened()
        asking: list[tuple[int, list[Answer]]] = []
        for place in unit.probes:  # serves in place: before the recipe itself
            try:
                asking.append((place, self._beside(engine, self.work.evaluators[place], recipe)))
            except Exception as error:
                yield self._broken(place, error)
        if unit.position in self._coming:
            self._look_ahead(engine, unit.position, advance)
        model = engine.serve(recipe)
        if not np.isfinite(model.next_token_logprobs([self.work.prompts[0].text])).all():
            raise NotFiniteError("its probabilities are not finite")
        share = engine.survived_update() if recipe.space == "weights" else None
        if share is not None:
            yield Survived(share)
        if unit.piece is not None:
            ahead = self._ahead.pop(unit.position, None)
            yield self._complete(engine, model, unit.piece, advance) if ahead is None else ahead
        for place, beside in asking:
            evaluator = self.work.evaluators[place].evaluator
            yield self._verdict(place, partial(evaluator.ask, model, recipe, beside))

    def _opened(self) -> Engine:
        if self._engine is None:
            self._engine = self.engine_factory()
        return self._engine

    def _beside(self, engine: Engine, item: NamedEvaluator, recipe: Recipe) -> list[Answer]:
        others = {item.key(self.work.mixture_key(other)): other for other in item.evaluator.beside(recipe)}
        for key, other in others.items():
            if key not in self._answers:
                self._answers[key] = item.evaluator.answer(engine.serve(other))
        return [self._answers[key] for key in others]

    def _look_ahead(self, engine: Engine, position: int, advance: Advance) -> None:
        """Complete a point in one batch with others of its sweep that will come; none where one is no model."""
        sweep = self._coming.pop(position)
        if position in self._ahead:
            return
        others = [i for i, other in self._coming.items() if other == sweep and i not in self._ahead]
        together = [position, *others[: engine.mixtures_per_batch(*self._asked) - 1]]
        if len(together) == 1:
            return
        started = time.perf_counter()
        try:
            found = engine.sweep([self.work.points[i].recipe for i in together], *self._asked, advance)
        except NotFiniteError:
            return
        spent = (time.perf_counter() - started) / len(together)
        self._ahead |= {i: Completed(drawn, spent) for i, drawn in zip(together, found, strict=True)}

    @property
    def _asked(self) -> tuple[Sequence[Prompt], Sampling]:
        return self.work.prompts, self.work.suite.sampling

    def _complete(self, engine: Engine, model: ServedModel, piece: Piece, advance: Advance) -> Completed:
        started = time.perf_counter()
        sampling = self.work.suite.sampling
        batches = engine.batches(self.work.prompts, sampling)
        first, end = (len(batches) * i // piece.of for i in (piece.index, piece.index + 1))
        chosen = [place for batch in batches[first:end] for place in batch]
        drawn = model.generate([self.work.prompts[i] for i in chosen], sampling, advance) if chosen else []
        completions = [Completion(chosen[c.prompt], c.sample, c.text, c.n_tokens, c.finish_reason) for c in drawn]
        completions.sort(key=lambda c: (c.prompt, c.sample))
        return Completed(completions, time.perf_counter() - started)

    # ------------------------------------------------------------------------------------------ verdicts

    def _verdict(self, place: int, found: Callable[[], Judgement], prompts: Sequence[Prompt] = ()) -> Verdict | Broken:
        started = time.perf_counter()
        item = self.work.evaluators[place]
        try:
            judgement = found()
        except Exception as error:
            return self._broken(place, error)
        items = prompts if judgement.items is None else judgement.items
        sets = list(dict.fromkeys(prompt.set for prompt in items)) if judgement.items is None else []
        return Verdict(
            place,
            metrics=item.evaluator.metrics(),
            scores=judgement.scores,
            statistics=[s for s in judgement.summaries if isinstance(s, RatioStatistic)],
            items=items,
            estimates=[*judgement.estimates, *estimates(judgement.summaries, items, sets)],
            distances=judgement.distances,
            duration_s=time.perf_counter() - started,
        )

    def _broken(self, place: int, error: Exception) -> Broken:
        """What breaks in a plugin's evaluator is kept for the end and stops nothing else; our own bugs stop the run."""
        if isinstance(error, UserError) or not self.work.evaluators[place].foreign:
            raise error
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        return Broken(place, f"{what} ({where.filename}:{where.lineno})")


def estimates(summaries: Sequence[Summary], items: Sequence[Prompt], sets: Sequence[str]) -> list[Estimate]:
    """Every summary over all items (prompts None) and over each named set."""
    owner = np.array([item.set for item in items])
    everywhere = np.ones(len(items), dtype=bool)
    found = [summary.estimate(everywhere, None) for summary in summaries]
    return found + [summary.estimate(owner == name, name) for name in sets for summary in summaries]
