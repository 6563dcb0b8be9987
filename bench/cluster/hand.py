"""What runs in a process of the cluster: a `Worker` that is told units and answers with their events."""

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bench import engines
from bench.cluster import weights
from bench.cluster.packing import Packed, PackedSamples, merged, pack, unpack
from bench.cluster.seats import Inside
from bench.cluster.weights import Sent
from bench.experts.plan import cache_folder
from bench.run.prepare import Work
from bench.run.units import Completed, Event, Unit
from bench.run.worker import Worker
from bench.suite.checkpoints import Checkpoint
from evaluators.base import Samples
from evaluators.judges import Judges


@dataclass(frozen=True)
class Hello:
    """Where an actor is and what it runs with; `lacking` are checkpoints whose files its node must get first."""

    host: str
    pid: int
    gpus: Sequence[str]  # that it sees
    machine: Mapping[str, Any]
    lacking: Sequence[str]


@dataclass(frozen=True)
class PackedPiece:
    """`Completed` on its way."""

    completions: Packed
    duration_s: float


@dataclass(frozen=True)
class Done:
    """What came of a unit, and the seconds it took."""

    packed: Sequence[Any]
    duration_s: float

    def events(self) -> Iterator[Event]:
        for one in self.packed:
            yield Completed(unpack(one.completions), one.duration_s) if isinstance(one, PackedPiece) else one

    def pieces(self) -> list[Packed]:
        return [one.completions for one in self.packed if isinstance(one, PackedPiece)]


class Actor:
    """A process of a seat that has the checkpoints it needs."""

    def __init__(self, sent: Mapping[str, Sent], inside: Inside) -> None:
        os.environ.update(inside.environment)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch

        torch.set_num_threads(inside.threads)
        self.sent = sent
        self.checkpoints: dict[str, Checkpoint] = {}

    def hello(self) -> Hello:
        found = {name: weights.kept(one, cache_folder()) for name, one in self.sent.items()}
        self.checkpoints = {name: one for name, one in found.items() if one is not None}
        gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        lacking = [name for name, one in found.items() if one is None]
        return Hello(socket.gethostname(), os.getpid(), gpus, engines.machine(), lacking)

    def receive(self, name: str, files: weights.Files) -> None:
        weights.unpacked(self.sent[name], files, cache_folder())


class Hand(Actor):
    """One engine, or its judges, in a process of their own."""

    def __init__(self, work: Work, sent: Mapping[str, Sent], inside: Inside) -> None:
        super().__init__(sent, inside)
        self.work = work
        self._worker: Worker | None = None
        self._samples: tuple[int, Samples] | None = None  # of the last point that was judged

    def do(self, unit: Unit, order: Sequence[int] = (), *parts: "Done | PackedSamples") -> Done:
        """`parts`: what is to be judged, as its engines gave it, and the `order` of its prompts in the store; or as the
        store has it."""
        started = time.perf_counter()
        samples = self._samples_of(unit.position, order, parts) if parts else None
        packed = [
            PackedPiece(pack(event.completions), event.duration_s) if isinstance(event, Completed) else event
            for event in self._opened().do(unit, samples)
        ]
        return Done(packed, time.perf_counter() - started)

    def _samples_of(self, position: int, order: Sequence[int], parts: "Sequence[Done | PackedSamples]") -> Samples:
        if self._samples is None or self._samples[0] != position:
            self._samples = position, samples_of(self.work, order, parts)
        return self._samples[1]

    def _opened(self) -> Worker:
        if self._worker is None:
            device = engines.device()
            work = replace(self.work, checkpoints=self.checkpoints)
            opened = partial(engines.engine_class(work.engine), work.checkpoints, work.suite.dtype, device)
            self._worker = Worker(work, opened, Judges(device))
        return self._worker


def samples_of(work: Work, order: Sequence[int], parts: "Sequence[Done | PackedSamples]") -> Samples:
    """A point's completions as the store gives them; `order`: the places of the work's prompts in the store's order."""
    stored = [part for part in parts if isinstance(part, PackedSamples)]
    if stored:
        return stored[0].samples()
    drawn = [piece for part in parts if isinstance(part, Done) for piece in part.pieces()]
    return Samples([work.prompts[i] for i in order], merged(drawn, order))
