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
from bench.cluster.packing import Packed, PackedSamples, pack, unpack
from bench.experts.plan import cache_folder
from bench.run.prepare import Work
from bench.run.units import Completed, Event, Unit
from bench.run.worker import Worker
from bench.suite.checkpoints import Checkpoint
from evaluators.judges import Judges


@dataclass(frozen=True)
class Hello:
    """Where a worker is and what it runs with; `lacking` are checkpoints whose files its node must get first."""

    node: str
    pid: int
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

    packed: Sequence[Event | PackedPiece]
    duration_s: float

    def events(self) -> Iterator[Event]:
        for one in self.packed:
            yield Completed(unpack(one.completions), one.duration_s) if isinstance(one, PackedPiece) else one


class Hand:
    """One engine and its judges in a process of their own."""

    def __init__(self, work: Work, threads: int) -> None:
        import torch

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        torch.set_num_threads(threads)
        self.work = work
        self.checkpoints: dict[str, Checkpoint] = {}
        self.worker: Worker | None = None

    def hello(self) -> Hello:
        self.checkpoints = {
            name: found
            for name, one in self.work.checkpoints.items()
            if (found := weights.kept(one, cache_folder())) is not None
        }
        lacking = [name for name in self.work.checkpoints if name not in self.checkpoints]
        return Hello(socket.gethostname(), os.getpid(), engines.machine(), lacking)

    def receive(self, name: str, files: weights.Files) -> None:
        weights.unpacked(self.work.checkpoints[name], files, cache_folder())

    def do(self, unit: Unit, samples: PackedSamples | None = None) -> Done:
        started = time.perf_counter()
        packed = [
            PackedPiece(pack(event.completions), event.duration_s) if isinstance(event, Completed) else event
            for event in self._worker().do(unit, None if samples is None else samples.samples())
        ]
        return Done(packed, time.perf_counter() - started)

    def _worker(self) -> Worker:
        if self.worker is None:
            device = engines.device()
            work = replace(self.work, checkpoints=self.checkpoints)
            opened = partial(engines.engine_class(work.engine), work.checkpoints, work.suite.dtype, device)
            self.worker = Worker(work, opened, Judges(device))
        return self.worker
