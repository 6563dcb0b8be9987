"""Which experts a suite wants fine-tuned, and where they are: sentences, trials, content keys.

A trial's key is the SHA-256 over the base's bytes, the sentences and the hyperparameters; its folder in the cache is
named by it.  So nothing is trained twice, and a suite finds its experts without naming a path.
`bench.experts.train` fills the cache; this module imports no torch.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path

from pydantic import ValidationError

from bench.experts.leaks import normalised
from bench.registry import suggest
from bench.schema import AdapterSource, FinetuneSpec, Prompt, PromptSource, Suite, Trial, TrialRecord, UserError
from bench.store.write import Store
from bench.suite.checkpoints import Checkpoint, resolve
from bench.suite.keys import key_of
from bench.suite.prompts import load_set

RECIPE = 1  # raised when the same trial would give other weights: format of the texts, optimizer, schedule


def cache_folder() -> Path:
    """$LERPBENCH_CACHE, else `lerpbench` in the user's cache folder."""
    if own := os.environ.get("LERPBENCH_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lerpbench"


@dataclass(frozen=True)
class PlannedTrial:
    """A trial and its folder: `trial.json` once it is finished, `model` if it was the best so far, else `training`."""

    trial: Trial
    key: str
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def adapter(self) -> Path:
        """What was trained, where that was a LoRA adapter; `model` has it merged."""
        return self.folder / "adapter"

    @property
    def record_path(self) -> Path:
        return self.folder / "trial.json"

    @property
    def record(self) -> TrialRecord | None:
        if not self.record_path.is_file():
            return None
        try:
            return TrialRecord.model_validate_json(self.record_path.read_bytes())
        except ValidationError:  # of another version of this program
            return None

    @property
    def is_kept(self) -> bool:
        """Whether its weights are in the cache."""
        return self.model.is_dir()


@dataclass(frozen=True)
class PlannedExpert:
    """An expert with everything that its weights depend on."""

    name: str
    base: Checkpoint
    train: Sequence[Prompt]
    validation: Sequence[Prompt]
    settings: Sequence[Trial]
    cache: Path

    @cached_property
    def trials(self) -> list[PlannedTrial]:
        texts = [[sentence.text for sentence in sentences] for sentences in (self.train, self.validation)]
        keys = [
            key_of("trial", RECIPE, self.base.digest, *texts, trial.model_dump(exclude_none=True))
            for trial in self.settings
        ]
        return [
            PlannedTrial(trial, key, self.cache / "experts" / key)
            for trial, key in zip(self.settings, keys, strict=True)
        ]

    @property
    def is_made(self) -> bool:
        """Whether all trials are finished and the best one's weights are in the cache."""
        best = self.best()
        return best is not None and best.is_kept and len(self.records()) == len(self.trials)

    @property
    def checkpoint(self) -> Checkpoint:
        """The best trial's model.  Until it is made: the base's files, which are alike in all but their numbers, under
        a digest of its own."""
        best = self.best()
        if best is not None and self.is_made:
            return resolve(str(best.model))
        keys = [trial.key for trial in self.trials]
        return self.base.model_copy(
            update={"source": f"{self.base.source}, to be fine-tuned", "digest": key_of("unmade", *keys)}
        )

    def records(self) -> list[TrialRecord]:
        """Of the trials that are finished, in the grid's order."""
        return [record for trial in self.trials if (record := trial.record) is not None]

    def best(self) -> PlannedTrial | None:
        """Of the finished trials: the first with the lowest validation perplexity; None where none is finite."""
        found = [(t, record.perplexity) for t in self.trials if (record := t.record) is not None]
        finite = [(trial, perplexity) for trial, perplexity in found if perplexity is not None]
        return min(finite, key=lambda pair: pair[1])[0] if finite else None


def given_checkpoints(suite: Suite) -> dict[str, Checkpoint]:
    """Name -> checkpoint of those that the suite names a source for.  Raises UserError where one cannot be found."""
    found: dict[str, Checkpoint] = {}
    for name, source in sorted(suite.checkpoints.items(), key=lambda item: isinstance(item[1], AdapterSource)):
        try:
            found[name] = resolve(source) if isinstance(source, str) else _adapted(source, found)
        except UserError as error:
            raise UserError(f"checkpoints.{name}: {error}") from error
    return {name: found[name] for name in suite.checkpoints}


def _adapted(source: AdapterSource, found: Mapping[str, Checkpoint]) -> Checkpoint:
    from bench.experts.adapters import densified

    if source.base not in found:
        raise UserError(f"base: no checkpoint {source.base!r} that is not an adapter{suggest(source.base, found)}")
    return densified(found[source.base], source.adapter, cache_folder())


def plan_experts(suite: Suite, checkpoints: Mapping[str, Checkpoint]) -> list[PlannedExpert]:
    """The experts of a suite, none where it has no `finetune` section; `checkpoints` are those that it gives.

    Raises UserError for sentences that cannot be read, or where `exclude` leaves none.
    """
    spec = suite.finetune
    if spec is None:
        return []
    excluded = _excluded(spec)

    def sentences(name: str, part: str, source: PromptSource) -> list[Prompt]:
        found = load_set(f"{name} {part}", source)
        kept = [sentence for sentence in found if normalised(sentence.text) not in excluded]
        if not kept:
            raise UserError(f"finetune.experts.{name}.{part}: finetune.exclude leaves none of {len(found)} sentences")
        return kept

    return [
        PlannedExpert(
            name=name,
            base=checkpoints[spec.base],
            train=sentences(name, "train", data.train),
            validation=sentences(name, "validation", data.validation),
            settings=spec.trials,
            cache=cache_folder(),
        )
        for name, data in spec.experts.items()
    ]


def learned(experts: Iterable[PlannedExpert]) -> dict[str, Sequence[Prompt]]:
    """The suite's key of each set of sentences that an expert learns from or is chosen by -> these sentences."""
    return {
        f"finetune.experts.{expert.name}.{part}": sentences
        for expert in experts
        for part, sentences in (("train", expert.train), ("validation", expert.validation))
    }


def _excluded(spec: FinetuneSpec) -> set[str]:
    found = {normalised(s.text) for i, source in enumerate(spec.exclude) for s in load_set(f"exclude[{i}]", source)}
    return found - {""}


def require_made(suite: Suite, experts: Iterable[PlannedExpert]) -> None:
    """Raise UserError where an expert is not trained yet."""
    for expert in experts:
        if not expert.is_made:
            raise UserError(
                f"suite {suite.name}: {expert.name} is not fine-tuned yet ({len(expert.records())} of "
                f"{len(expert.trials)} trials done); `lerpbench finetune` makes it, and so does `lerpbench run`"
            )


def training_s(experts: Iterable[PlannedExpert], workers: int = 1) -> float | None:
    """Seconds that the trials left take, so many at once, at the finished ones' pace for a sentence; None where none is
    finished."""
    trials = [(trial.record, trial.trial) for expert in experts for trial in expert.trials]
    learnt = sum(trial.steps * trial.batch_size for record, trial in trials if record is not None)
    left = sum(trial.steps * trial.batch_size for record, trial in trials if record is None)
    took = sum(record.duration_s for record, _ in trials if record is not None)
    if not learnt:
        return None
    unfinished = sum(record is None for record, _ in trials)
    rounds = ceil(unfinished / workers) / unfinished if unfinished else 0.0
    return took / learnt * left * rounds


def record(experts: Sequence[PlannedExpert], store: Store, suite_id: int) -> None:
    """Put every finished trial into the store, with which of an expert's is chosen."""
    store.keep_experts(suite_id, [expert.name for expert in experts])
    for expert in experts:
        best = expert.best()
        store.put_trials(suite_id, expert.name, expert.records(), best.key if best and expert.is_made else None)
