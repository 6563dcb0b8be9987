"""Which experts a suite wants fine-tuned, and where they are: sentences, trials, content keys, the leak guard.

A trial's key is the SHA-256 over the base's bytes, the sentences and the hyperparameters; its folder in the cache is
named by it.  So nothing is trained twice, and a suite finds its experts without naming a path.  `bench.finetune` fills
the cache; this module imports no torch.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from bench.checkpoints import Checkpoint, resolve
from bench.plan import key_of
from bench.prompts import load_set
from bench.schema import FinetuneSpec, Prompt, PromptSource, Suite, Trial, TrialRecord, UserError

RECIPE = 1  # raised when the same trial would give other weights: format of the texts, optimizer, schedule
SHOWN = 3  # leaked sentences named in a refusal


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
        keys = [key_of("trial", RECIPE, self.base.digest, *texts, trial.model_dump()) for trial in self.settings]
        return [
            PlannedTrial(trial, key, self.cache / "experts" / key)
            for trial, key in zip(self.settings, keys, strict=True)
        ]

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
    found = {}
    for name, source in suite.checkpoints.items():
        try:
            found[name] = resolve(source)
        except UserError as error:
            raise UserError(f"checkpoints.{name}: {error}") from error
    return found


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


def _excluded(spec: FinetuneSpec) -> set[str]:
    found = {normalised(s.text) for i, source in enumerate(spec.exclude) for s in load_set(f"exclude[{i}]", source)}
    return found - {""}


def trained(suite: Suite, experts: Iterable[PlannedExpert]) -> dict[str, Checkpoint]:
    """Name -> the chosen checkpoint of each expert.  Raises UserError where one is not trained yet."""
    found = {}
    for expert in experts:
        best, missing = expert.best(), sum(trial.record is None for trial in expert.trials)
        if missing or best is None or not best.is_kept:
            raise UserError(
                f"suite {suite.name}: {expert.name} is not fine-tuned yet ({len(expert.trials) - missing} of "
                f"{len(expert.trials)} trials done); run `lerpbench finetune SUITE` first"
            )
        found[expert.name] = resolve(str(best.model))
    return found


# ---------------------------------------------------------------------------------------------- the leak guard


def normalised(text: str) -> str:
    """What two texts are compared by: letters and digits alone, after NFKC and case folding.

    So the treebank's spacing and brackets (`it 's`, `-LRB-`), punctuation and capitals make no difference.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", "", re.sub(r"-[lr][rsc]b-", "", folded))


def require_no_leak(experts: Sequence[PlannedExpert], held_out: Mapping[str, Sequence[Prompt]]) -> None:
    """Raise UserError where an evaluator's held-out sentence is one that an expert is trained or chosen on."""
    seen: dict[str, str] = {}
    for expert in experts:
        for part, sentences in (("train", expert.train), ("validation", expert.validation)):
            for sentence in sentences:
                seen.setdefault(normalised(sentence.text), f"finetune.experts.{expert.name}.{part} row {sentence.row}")
    seen.pop("", None)
    leaks = [
        f"{evaluator} {sentence.set} row {sentence.row} {sentence.text[:60]!r} ({seen[key]})"
        for evaluator, sentences in held_out.items()
        for sentence in sentences
        if (key := normalised(sentence.text)) in seen
    ]
    if leaks:
        more = f" and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else ""
        raise UserError(
            f"{len(leaks)} evaluation sentence{'s' * (len(leaks) > 1)} among those that experts learn from: "
            f"{'; '.join(leaks[:SHOWN])}{more}; take them out there, or name their source in finetune.exclude"
        )
