"""Judge a submission again: everything that is cheap, a sample of prompts where a model has to read.

For each generation its key and its completions; for each verdict its key, its scores and per-prompt sums judged again,
the sums that follow from stored scores, and the estimates that follow from stored sums.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import permutations

import numpy as np

import evaluators
from bench.progress import Advance, Task
from bench.run.worker import estimates
from bench.schema import Prompt, Sampling, UserError
from bench.stats import MedianStatistic, RatioStatistic, Summary
from bench.store.write import Store
from bench.submissions import bundle
from bench.submissions.findings import Mismatch, Report, shown, stored_suite
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

CHEAP = ("distinct", "repetition", "length")
NOT_JUDGED_AGAIN = ("huggingface",)  # would run a script that the bundle names
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # a model's scores on another machine


def recompute(store: Store, report: Report, sample: int, seed: int, device: str, task: Task) -> None:
    """Check every generation and every verdict of a database of one suite."""
    (n,) = store.db.execute("SELECT count(*) FROM generations").fetchone()
    right = f"every prompt of {n} generations has all its samples; keys follow from prompts and sampling"
    report.check("completions", right, lambda: generations(store))
    report.check("evaluators", "verdicts were given with the suite's options", lambda: options(store))
    judges = Judges(device)
    found = store.db.execute(
        "SELECT evaluator, version, options, count(*) FROM evaluations GROUP BY 1, 2, 3 ORDER BY min(id)"
    )
    configurations = found.fetchall()
    with task("Verifying verdicts", sum(row[-1] for row in configurations)) as advance:
        for name, version, stored_options, count in configurations:
            check = Check(store, name, version, stored_options, sample, seed, judges, advance)
            if report.check(shown(name).strip('"'), "", check.verdicts):
                report.checked[-1] = (report.checked[-1][0], f"{count} verdicts: {'; '.join(check.done)}")
            if check.reason is not None:
                report.skipped.append((shown(name).strip('"'), check.reason))


def generations(store: Store) -> Iterator[Mismatch]:
    """Keys, counts, and that every prompt of the suite has all its samples."""
    everyone: list[Prompt] | None = None
    for id_, key, mixture, sampling_json, *counts in store.db.execute(
        "SELECT generations.id, generations.key, mixtures.key, sampling, n_prompts, n_completions, n_tokens "
        "FROM generations JOIN mixtures ON mixtures.id = mixture_id ORDER BY generations.id"
    ).fetchall():
        prompts, completions = store.generated(id_)
        sampling = Sampling.model_validate_json(sampling_json)
        row = {"point": label(store, "generation_id", id_)}
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
        keys = [content_keys.generation_key(mixture, order, sampling) for order in orders(prompts)]
        expected = [key if key in keys else keys[0], len(prompts), len(completions),
                    sum(c.n_tokens for c in completions)]  # fmt: skip
        names = ("key", "n_prompts", "n_completions", "n_tokens")
        for column, has, wanted in zip(names, [key, *counts], expected, strict=True):
            if has != wanted:
                yield Mismatch("generations", row, column, has, wanted)


def label(store: Store, column: str, id_: int) -> str:
    """The first point that a generation or a mixture stands for."""
    found = store.db.execute(
        f"SELECT method, params FROM points WHERE {column} = ? ORDER BY position", [id_]
    ).fetchone()
    return "none" if found is None else bundle.place(found)


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


def options(store: Store) -> Iterator[Mismatch]:
    """The evaluators of the verdicts are those of the suite, with all their options."""
    asked = [builtin(spec.name, json.dumps(spec.options)) for spec in stored_suite(store).evaluators]
    for name, version, given in store.db.execute("SELECT DISTINCT evaluator, version, options FROM evaluations"):
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
    """Which evaluation it is; `items` are what its sums are about, in the order in which they were judged."""

    id: int
    key: str
    mixture: str
    generation: str | None
    generation_id: int | None
    data: list[str] | None
    label: str
    items: Sequence[Prompt] = ()


@dataclass
class Check:
    """All verdicts of one configuration of an evaluator.  `done` says what was compared, `reason` why not all."""

    store: Store
    name: str
    version: int
    options: str
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
            data, expected = verdict.data, self._data(verdict, stored, local)
            if data is not None and expected is not None and data != expected:
                yield Mismatch("evaluations", self._row(verdict), "data", data, expected)
            elif (used := data if expected is None else expected) is not None and (keys := self._keys(verdict, used)):
                known += 1
                if verdict.key not in keys:
                    yield Mismatch("evaluations", self._row(verdict), "key", verdict.key, keys[0])
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
        rows = self.store.db.execute(
            "SELECT evaluations.id, evaluations.key, mixtures.key, generations.key, generation_id, data, "
            "evaluations.mixture_id FROM evaluations JOIN mixtures ON mixtures.id = evaluations.mixture_id "
            "LEFT JOIN generations ON generations.id = generation_id "
            "WHERE evaluator = ? AND version = ? AND options = ? ORDER BY evaluations.id",
            [self.name, self.version, self.options],
        )
        found = []
        for id_, key, mixture, generation, generation_id, data, mixture_id in rows.fetchall():
            digests = None if data is None else json.loads(data)
            where = label(self.store, "mixture_id", mixture_id)
            found.append(Verdict(id_, key, mixture, generation, generation_id, digests, where))
        return [replace(verdict, items=self._items(verdict)) for verdict in found]

    def _items(self, verdict: Verdict) -> list[Prompt]:
        """The prompts of the completions, or what a probe's sums are about, in the order whose digest is in its key."""
        if verdict.generation_id is not None:
            return self.store.generated(verdict.generation_id)[0]
        rows = self.store.db.execute(
            "SELECT DISTINCT input_id, set_name, row, text FROM statistics JOIN inputs ON inputs.id = input_id "
            "WHERE evaluation_id = ? ORDER BY input_id",
            [verdict.id],
        )
        items = [Prompt(set=set_name, row=row, text=text) for _, set_name, row, text in rows]
        right = (o for o in orders(items) if verdict.key in self._keys(verdict, [texts_digest(o)]))
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
        if not packaged and not any(verdict.key in self._keys(verdict, data) for verdict in stored):
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
        complete = digests.keys() == stored_suite(self.store).checkpoints.keys()
        return [content_keys.key_of("checkpoints", digests)] if complete else []

    # -------------------------------------------------------------------------------------- one verdict

    def _differences(self, verdict: Verdict) -> Iterator[Difference]:
        stored = read_verdict(self.store, verdict.id)
        evaluator = self.evaluator
        metrics = set(stored.sums)
        summaries: list[Summary] = []
        if evaluator is not None and evaluator.looks_at == "completions" and verdict.generation_id is not None:
            samples = Samples(*self.store.generated(verdict.generation_id))
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
        sets = list(dict.fromkeys(item.set for item in verdict.items)) if verdict.generation_id is not None else []
        self.sums |= bool(stored.sums) or bool(summaries)
        for metric, own in stored.sums.items():
            if lost := [item for item in verdict.items if item not in own]:
                yield "statistics", {"metric": metric} | named(lost[0]), "numerator", ABSENT, "a number"
                return
            summaries.append(stored.statistic(metric, verdict.items))
        yield from compare_estimates(stored, estimates(summaries, verdict.items, sets), metrics)

    def _part(self, samples: Samples, verdict: Verdict) -> Samples:
        """Some prompts with all their completions."""
        n = len(samples.prompts)
        chosen = sorted(random.Random(f"{self.seed} {verdict.key}").sample(range(n), min(self.sample, n)))
        place = {prompt: i for i, prompt in enumerate(chosen)}
        kept = [replace(c, prompt=place[c.prompt]) for c in samples.completions if c.prompt in place]
        return Samples([samples.prompts[i] for i in chosen], kept)


def medians(evaluator: Evaluator, stored: StoredVerdict, samples: Samples) -> list[Summary]:
    """The summaries of perplexity that are no ratios, from its stored scores."""
    if not isinstance(evaluator, Perplexity):
        return []
    _, conditional, median = (metric.name for metric in evaluator.metrics())
    scores = [stored.scores[conditional].get(place, (None, None))[0] for place in places(samples)]
    values = np.array([np.nan if value is None else value for value in scores], dtype=np.float64)
    return [MedianStatistic(median, samples.prompt_of, values, len(samples.prompts))]
