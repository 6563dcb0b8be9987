"""Trials of `finetune` on many workers: each trains whole trials, and this process keeps what comes of them.

A worker that sees this process's cache trains in it, so that a trial that was cut off goes on where it was; another
trains in its node's own, and sends the weights where they may be kept.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import engines
from bench.cluster.agenda import Agenda
from bench.cluster.crew import Crew, Finished
from bench.cluster.hand import Actor, Done
from bench.cluster.nodes import Places, Workers, connected, most_threads, nodes, places
from bench.cluster.seats import Inside, settings
from bench.cluster.weights import Files, Sent, sent
from bench.experts.plan import PlannedExpert, PlannedTrial, cache_folder
from bench.progress import Task, silently
from bench.schema import Share, TrialRecord, UserError


@dataclass(frozen=True)
class Train:
    """One trial of one expert, by their places."""

    expert: int
    trial: int


class Trainer(Actor):
    """Trains in a process of its own."""

    def __init__(
        self, experts: Sequence[PlannedExpert], device_batch_size: int | None, sent: Mapping[str, Sent], inside: Inside
    ) -> None:
        super().__init__(sent, inside)
        self.experts = experts
        self.device_batch_size = device_batch_size

    def do(self, unit: Train) -> Done:
        """Its record; the weights stay here, until `files` is asked for them."""
        from bench.experts.train import Workshop, train

        started = time.perf_counter()
        expert, trial = self._here(unit)
        if trial.record is None or not trial.is_kept:
            workshop = Workshop(engines.device(), self.device_batch_size, silently, engines.machine())
            train(expert, trial, workshop, expert.name, keep=True)
        return Done([trial.record], time.perf_counter() - started)

    def files(self, unit: Train) -> Mapping[str, Files]:
        """Folder -> name -> bytes."""
        _, trial = self._here(unit)
        kept = [folder for folder in (trial.model, trial.adapter) if folder.is_dir()]
        return {folder.name: {path.name: path.read_bytes() for path in folder.iterdir()} for folder in kept}

    def _here(self, unit: Train) -> tuple[PlannedExpert, PlannedTrial]:
        expert = self.experts[unit.expert]
        cache = expert.cache if sees(expert.cache) else cache_folder()
        here = replace(expert, base=self.checkpoints[expert.name], cache=cache)
        return here, here.trials[unit.trial]


def train_elsewhere(
    experts: Sequence[PlannedExpert], device_batch_size: int | None, task: Task, workers: Workers,
    address: str | None, told: Callable[[], None],
) -> None:  # fmt: skip
    """Train what is not trained yet on this machine's cores or GPUs, or on those of a Ray cluster.

    Raises UserError at the end for trials that lost three workers; the others are kept.
    """
    with connected(address) as ray:
        found = places(nodes(ray), workers, most_threads())
        School(ray, experts, device_batch_size, task, found).execute(told)


class School:
    """The trials of several experts on a crew."""

    def __init__(
        self, ray: Any, experts: Sequence[PlannedExpert], device_batch_size: int | None, task: Task, places: Places
    ) -> None:
        self.ray = ray
        self.experts = experts
        self.task = task
        for expert in experts:
            expert.cache.mkdir(parents=True, exist_ok=True)
        bases = {expert.name: sent(expert.base, cache_folder()) for expert in experts}
        arguments = [ray.put(list(experts)), device_batch_size]
        self.crew = Crew(ray, places, self, Trainer, arguments, bases, settings(os.environ))

    def execute(self, told: Callable[[], None]) -> Sequence[Share]:
        """Train what is missing, and tell of every finished trial.  Returns who did what."""
        from bench.experts.train import settle

        missing = {
            Train(i, j): float(trial.trial.steps * trial.trial.batch_size)
            for i, expert in enumerate(self.experts)
            for j, trial in enumerate(expert.trials)
            if trial.record is None
        }
        if not missing:
            return []
        agenda = Agenda(missing.items(), self.crew.places.workers)
        failed: list[str] = []
        try:
            with self.task(f"Fine-tuning on {self.crew.places.workers} workers", len(missing)) as advance:
                for finished in self.crew.work(agenda, ["serve"], advance):
                    expert, trial = self._planned(finished.unit)
                    if finished.done is None:
                        failed.append(f"{expert.name}, trial {finished.unit.trial + 1}: {finished.why}")
                    elif not self._kept(expert, trial, finished):
                        agenda.put_back(finished.unit)
                        continue
                    advance(1)
                    told()
        finally:
            for i, expert in enumerate(self.experts):
                settle(expert, {expert.trials[unit.trial].key for unit in missing if unit.expert == i})
        if failed:
            raise UserError(f"finetune: {'; '.join(failed)}; the same command tries again")
        return self.crew.shares

    def _planned(self, unit: Train) -> tuple[PlannedExpert, PlannedTrial]:
        expert = self.experts[unit.expert]
        return expert, expert.trials[unit.trial]

    def _kept(self, expert: PlannedExpert, trial: PlannedTrial, finished: Finished) -> bool:
        """Whether the trial is in this process's cache now; where its worker has another, what it sends is written."""
        from ray.exceptions import RayError

        from bench.experts.adapters import replace_folder
        from bench.experts.train import put_record

        if trial.record is not None and trial.is_kept:
            return True
        assert finished.done is not None
        (record,) = finished.done.packed
        if is_best(record, expert.records()):
            try:
                folders = self.ray.get(finished.actor.files.remote(finished.unit))
            except RayError:  # its worker is gone, and the weights with it
                return False
            trial.folder.mkdir(parents=True, exist_ok=True)
            for name, files in folders.items():
                replace_folder(trial.folder / name, partial(write, files))
        put_record(trial, record)
        return True

    def given(self, unit: Train) -> Sequence[Any]:
        return []

    def lost(self, unit: Train) -> None: ...

    def label(self, unit: Train) -> str:
        return f"trains {self.experts[unit.expert].name}, trial {unit.trial + 1}"


def sees(cache: Path) -> bool:
    """Whether this process sees the folder of the one that was started; it made it."""
    return cache.is_dir()


def is_best(record: TrialRecord, rivals: Sequence[TrialRecord]) -> bool:
    """Of those that are finished so far."""
    least = min((one.perplexity for one in rivals if one.perplexity is not None), default=math.inf)
    return record.perplexity is not None and record.perplexity <= least


def write(files: Files, folder: Path) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
