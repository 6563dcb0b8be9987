"""Judge a submission again: everything that is cheap, a sample of prompts where a model has to read.

For each generation its key and its completions; for each verdict its key, its scores and per-prompt sums judged again,
the sums that follow from stored scores, and the estimates that follow from stored sums.
"""

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import permutations

import numpy as np

import evaluators
from bench import engines
from bench.progress import Advance, Task
from bench.run.worker import estimates
from bench.schema import Estimate, Prompt, TensorDistance, UserError
from bench.stats import MedianStatistic, RatioStatistic, Summary
from bench.store.read import Reader
from bench.store.values import StoredEvaluation, StoredPoint
from bench.submissions import bundle
from bench.submissions.findings import Mismatch, Report, shown
from bench.submissions.verdicts import (
    ABSENT,
    EXACT,
    Difference,
    StoredVerdict,
    compare_estimates,
    compare_judgement,
    compare_scores_with_sums,
    places,
    read_verdict,
)
from bench.suite import keys as content_keys
from bench.suite.prompts import texts_digest
from evaluators.base import Evaluator, Samples
from evaluators.judges import Judges
from evaluators.perplexity import Perplexity
from evaluators.weight_distance import WeightDistance

CHEAP = ("distinct", "repetition", "length")
NOT_JUDGED_AGAIN = ("huggingface",)  # would run a script that the bundle names
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # a model's scores on another machine


def recompute(store: Reader, report: Report, sample: int, seed: int, device: str, task: Task) -> None:
    """Check every generation and every verdict of a database of one suite."""
    n = store.count("generations")
    right = f"every prompt of {n} generations has all its samples; keys follow from prompts and sampling"
    report.check("completions", right, lambda: generations(store))
    report.check("evaluators", "verdicts were given with the suite's options", lambda: options(store))
    judges = Judges(device)
    configurations: dict[tuple[str, int, str], list[StoredEvaluation]] = {}
    for one in store.evaluations():
        configurations.setdefault((one.evaluator, one.version, one.options), []).append(one)
    labels = Labels(store)
    with task("Verifying verdicts", store.count("evaluations")) as advance:
        for (name, version, stored_options), found in configurations.items():
            check = Check(store, name, version, stored_options, found, labels, sample, seed, judges, advance)
            if report.check(shown(name).strip('"'), "", check.verdicts):
                report.checked[-1] = (report.checked[-1][0], f"{len(found)} verdicts: {'; '.join(check.done)}")
            if check.reason is not None:
                report.skipped.append((shown(name).strip('"'), check.reason))


def generations(store: Reader) -> Iterator[Mismatch]:
    """Keys, counts, and that every prompt of the suite has all its samples."""
    everyone: list[Prompt] | None = None
    labels = Labels(store)
    mixtures = {mixture.id: mixture for mixture in store.mixtures()}
    for generation in store.generations():
        prompts, completions = store.generated(generation.id)
        sampling = generation.sampling
        row = {"point": labels.of_generation(generation.id)}
        drawn: list[list[int]] = [[] for _ in prompts]
        for c in completions:
            drawn[c.prompt].append(c.sample)
            if not 0 <= c.n_tokens <= sampling.max_new_tokens or c.finish_reason not in ("stop", "length"):
                where = row | named(prompts[c.prompt]) | {"sample": c.sample}
                yield Mismatch("completions", where, "n_tokens, finish_reason", [c.n_tokens, c.finish_reason],
                               f"at most {sampling.max_new_tokens}; stop or length")  # fmt: skip
        for prompt, samples in zip(prompts, drawn, strict=True):
            if len(samples) != sampling.samples or sorted(samples) != [*range(len(samples))]:
                yield Mismatch("completions", row | named(prompt), "samples", samples, f"0 to {sampling.samples - 1}")
        everyone = prompts if everyone is None else everyone
        if prompts != everyone:
            yield Mismatch("generations", row, "prompts", len(prompts), f"the {len(everyone)} of the other generations")
        mixture = mixtures[generation.mixture_id]
        keys = [
            content_keys.generation_key(mixture.key, order, sampling, shard)
            for order in orders(prompts)
            for shard in dict.fromkeys([engines.shard_prompts(mixture.engine), None])  # older versions had none
        ]
        expected = {"key": generation.key if generation.key in keys else keys[0], "n_prompts": len(prompts),
                    "n_completions": len(completions), "n_tokens": sum(c.n_tokens for c in completions)}  # fmt: skip
        for column, wanted in expected.items():
            if (has := getattr(generation, column)) != wanted:
                yield Mismatch("generations", row, column, has, wanted)


def all_points(store: Reader) -> list[StoredPoint]:
    return [point for on in store.suites() for point in store.points(on.id, on.engine)]


@dataclass
class Labels:
    """The first point that a generation or a mixture stands for, by its id."""

    store: Reader

    @cached_property
    def points(self) -> list[StoredPoint]:
        return all_points(self.store)

    def of_generation(self, id_: int) -> str:
        return next((point.name for point in self.points if point.generation_id == id_), "none")

    def of_mixture(self, id_: int) -> str:
        return next((point.name for point in self.points if point.mixture.id == id_), "none")


def orders(items: Sequence[Prompt]) -> Iterator[list[Prompt]]:
    """As given, then set after set in every order, rows ascending: the order of sets is stored in keys alone."""
    yield list(items)
    names = list(dict.fromkeys(item.set for item in items))
    for order in permutations(names) if len(names) <= 5 else ():
        yield sorted(items, key=lambda item: (order.index(item.set), item.row))


def named(prompt: Prompt) -> dict[str, object]:
    return {"prompts": prompt.set, "row": prompt.row}


def builtin(name: str, options_json: str) -> Evaluator | None:
    """A built-in evaluator with these options, None for any other: a bundle may not name code to run."""
    if name not in evaluators.TABLE or name in NOT_JUDGED_AGAIN:
        return None
    return evaluators.registry().create(name, json.loads(options_json))


def options(store: Reader) -> Iterator[Mismatch]:
    """The evaluators of the verdicts are those of the suite, with all their options."""
    asked = [builtin(spec.name, json.dumps(spec.options)) for spec in bundle.stored_suite(store).evaluators]
    stored = dict.fromkeys((one.evaluator, one.version, one.options) for one in store.evaluations())
    for name, version, given in stored:
        evaluator = builtin(name, given)
        newest = None if evaluator is None else type(evaluator).version
        if newest is not None and not 1 <= version <= newest:
            yield Mismatch("evaluations", {"evaluator": name}, "version", version, f"1 to {newest}")
        if evaluator is not None and evaluator not in asked:
            same = [other.model_dump() for other in asked if type(other) is type(evaluator) and other is not None]
            yield Mismatch("evaluations", {"evaluator": name}, "options", json.loads(given), same)


# ------------------------------------------------------------------------------------------------------ verdicts


@dataclass(frozen=True)
class Verdict:
    """A stored evaluation; `items` are what its sums are about, in the order in which they were judged."""

    stored: StoredEvaluation
    mixture: str
    generation: str | None
    label: str
    items: Sequence[Prompt] = ()


@dataclass
class Check:
    """All verdicts of one configuration of an evaluator.  `done` says what was compared, `reason` why not all."""

    store: Reader
    name: str
    version: int
    options: str
    found: Sequence[StoredEvaluation]
    labels: Labels
    sample: int
    seed: int
    judges: Judges
    advance: Advance
    done: list[str] = field(default_factory=list)
    reason: str | None = None
    sums: bool = False

    def verdicts(self) -> Iterator[Mismatch]:
        stored = self._stored()
        local = self._local(stored)
        known = 0
        for verdict in stored:
            self.advance(1)
            data, expected = list(verdict.stored.data), self._data(verdict, stored, local)
            if expected is not None and data != expected:
                yield Mismatch("evaluations", self._row(verdict), "data", data, expected)
            elif keys := self._keys(verdict, data):
                known += 1
                if verdict.stored.key not in keys:
                    yield Mismatch("evaluations", self._row(verdict), "key", verdict.stored.key, keys[0])
            for table, row, column, has, wanted in self._differences(verdict):
                yield Mismatch(table, self._row(verdict) | row, column, has, wanted)
        if known:
            self.done.append("keys")
        if self.reason is None:
            some = "all completions" if self.name in CHEAP else f"{self.sample} prompts each (--seed {self.seed})"
            self.done.append(f"{some} judged again")
        self.done.append("estimates computed again" if self.sums else "its estimates have no sums to follow from")

    def _row(self, verdict: Verdict) -> dict[str, object]:
        return {"point": verdict.label, "evaluator": self.name}

    # -------------------------------------------------------------------------------------- what it is about

    @cached_property
    def evaluator(self) -> Evaluator | None:
        return builtin(self.name, self.options)

    def _stored(self) -> list[Verdict]:
        mixtures = {mixture.id: mixture.key for mixture in self.store.mixtures()}
        generations = {generation.id: generation.key for generation in self.store.generations()}
        found = [
            Verdict(one, mixtures[one.mixture_id], generations.get(one.generation_id or 0),
                    self.labels.of_mixture(one.mixture_id))
            for one in self.found
        ]  # fmt: skip
        return [replace(verdict, items=self._items(verdict)) for verdict in found]

    def _items(self, verdict: Verdict) -> list[Prompt]:
        """The prompts of the completions, or what a probe's sums are about, in the order whose digest is in its key."""
        if verdict.stored.generation_id is not None:
            return [prompt for _, prompt, _ in self.store.prompts_of(verdict.stored.generation_id)]
        items = self.store.items_of(verdict.stored.id)
        right = (o for o in orders(items) if verdict.stored.key in self._keys(verdict, [texts_digest(o)]))
        return next(right, items)

    def _local(self, stored: Sequence[Verdict]) -> list[str] | None:
        """The digests of what judges on this machine, None where it is not what judged; sets `reason`."""
        evaluator = self.evaluator
        if evaluator is None:
            self.reason = "not built in, and a bundle may not name code to run: its scores are taken as stored"
        elif self.version != type(evaluator).version:
            self.reason = f"judged by version {self.version}, here is {type(evaluator).version}: taken as stored"
        elif evaluator.looks_at != "completions":
            self.reason = "the mixed models answered, not the completions: what they said is taken as stored"
        if self.reason is not None or evaluator is None:
            return None
        try:
            data = evaluator.data_digests()
        except UserError as error:
            self.reason = f"{error}: its scores are taken as stored"
            return None
        packaged = str(getattr(evaluator, "model", "mini:")).startswith("mini:")
        if not packaged and not any(verdict.stored.key in self._keys(verdict, data) for verdict in stored):
            self.reason = "the judge on this machine is not the one on record: its scores are taken as stored"
            return None
        return data

    def _data(self, verdict: Verdict, stored: Sequence[Verdict], local: list[str] | None) -> list[str] | None:
        """The digests that the verdict's key should cover, None where they cannot be known.

        Of what asks the models: its sentences'.  A verdict without any was asked the same as the others.
        """
        if self.evaluator is None or self.evaluator.looks_at == "completions":
            return local
        items = next((other.items for other in (verdict, *stored) if other.items), None)
        return [] if items is None else [texts_digest(items)]

    def _keys(self, verdict: Verdict, data: Sequence[str]) -> list[str]:
        """The key of a verdict on completions; else on a mixture or on all checkpoints, none where one is not known."""
        subjects = [verdict.mixture] if verdict.generation is None else [verdict.generation]
        if verdict.generation is None and (self.evaluator is None or self.evaluator.looks_at == "checkpoints"):
            subjects = [*subjects, *self._checkpoints] if self._checkpoints else []
        given = json.loads(self.options)
        return [content_keys.evaluation_key(subject, self.name, self.version, given, data) for subject in subjects]

    @cached_property
    def _checkpoints(self) -> list[str]:
        """The key of all the suite's checkpoints together; empty where no point mixes some of them."""
        digests = bundle.checkpoints(self.store)
        complete = digests.keys() == bundle.stored_suite(self.store).checkpoints.keys()
        return [content_keys.key_of("checkpoints", digests)] if complete else []

    # -------------------------------------------------------------------------------------- one verdict

    def _differences(self, verdict: Verdict) -> Iterator[Difference]:
        stored = read_verdict(self.store, verdict.stored.id)
        evaluator = self.evaluator
        metrics = set(stored.sums)
        summaries: list[Summary] = []
        if evaluator is not None and evaluator.looks_at == "completions" and verdict.stored.generation_id is not None:
            samples = Samples(*self.store.generated(verdict.stored.generation_id))
            yield from compare_scores_with_sums(stored, samples)
            if self.reason is None:
                cheap = self.name in CHEAP
                part = samples if cheap else self._part(samples, verdict)
                judgement = evaluator.judge(part, self.judges)
                tolerance = EXACT if cheap else TOLERANCE[getattr(evaluator, "precision", "float32")]
                yield from compare_judgement(stored, part, judgement, tolerance)
                metrics = {key[0] for key in stored.estimates} | {metric.name for metric in evaluator.metrics()}
                summaries = [s for s in judgement.summaries if not isinstance(s, RatioStatistic)] if cheap else []
                summaries += medians(evaluator, stored, samples)
        sets = (
            list(dict.fromkeys(item.set for item in verdict.items)) if verdict.stored.generation_id is not None else []
        )
        self.sums |= bool(stored.sums) or bool(summaries)
        for metric, own in stored.sums.items():
            if lost := [item for item in verdict.items if item not in own]:
                yield "statistics", {"metric": metric} | named(lost[0]), "numerator", ABSENT, "a number"
                return
            summaries.append(stored.statistic(metric, verdict.items))
        yield from compare_estimates(stored, estimates(summaries, verdict.items, sets), metrics)
        if isinstance(evaluator, WeightDistance):
            self.sums = True
            overall = over_all_tensors(evaluator, self.store.distances_of(verdict.stored.id))
            yield from compare_estimates(stored, overall, {estimate.metric for estimate in overall})

    def _part(self, samples: Samples, verdict: Verdict) -> Samples:
        """Some prompts with all their completions."""
        n = len(samples.prompts)
        chosen = sorted(random.Random(f"{self.seed} {verdict.stored.key}").sample(range(n), min(self.sample, n)))
        place = {prompt: i for i, prompt in enumerate(chosen)}
        kept = [replace(c, prompt=place[c.prompt]) for c in samples.completions if c.prompt in place]
        return Samples([samples.prompts[i] for i in chosen], kept)


def over_all_tensors(evaluator: WeightDistance, tensors: Sequence[TensorDistance]) -> list[Estimate]:
    """sqrt(sum n d^2 / sum n) of each pair, over its tensors of n elements at distance d."""
    found = []
    for pair in evaluator.pairs:
        own = [one for one in tensors if one.pair == pair]
        n = sum(one.elements for one in own)
        value = math.sqrt(sum(one.elements * one.distance**2 for one in own) / n) if n else None
        metric = evaluator.named(f"weight_distance[{pair}]")
        found.append(Estimate(metric=metric, prompts=None, value=value, n_scored=n, n_total=n))
    return found


def medians(evaluator: Evaluator, stored: StoredVerdict, samples: Samples) -> list[Summary]:
    """The summaries of perplexity that are no ratios, from its stored scores."""
    if not isinstance(evaluator, Perplexity):
        return []
    _, conditional, median = (metric.name for metric in evaluator.metrics())
    scores = [stored.scores[conditional].get(place, (None, None))[0] for place in places(samples)]
    values = np.array([np.nan if value is None else value for value in scores], dtype=np.float64)
    return [MedianStatistic(median, samples.prompt_of, values, len(samples.prompts))]
