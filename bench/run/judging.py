"""Judges in a process beside this one: texts are judged while the next mixture is served.

On a CPU small operations gain little from a second thread, and two processes of half the threads each do more
(docs/SPEED.md).  Where nothing is left to judge, that process serves a mixture, too, so that both are busy to the end.
What comes of a unit depends neither on the process that does it nor on its threads.
"""

import os
import pickle
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import Any

from bench import engines
from bench.collector import set_aside
from bench.environment import memory_bytes
from bench.run.memory import file_bytes, needed
from bench.run.prepare import Work
from bench.run.second import SecondProcess
from bench.run.units import Event, Judge, Serve, Unit
from bench.run.worker import Worker
from bench.schema import Share, UserError
from bench.serving import Engine
from bench.suite.checkpoints import locate
from bench.suite.loading import quieten
from evaluators.base import ModelJudgeEvaluator, Samples
from evaluators.judges import Judges

THERE = "there"  # what the second process says when it has its work


@dataclass(frozen=True)
class Did:
    """What came of a unit, and the seconds it took."""

    unit: Judge | Serve
    events: Sequence[Event]
    duration_s: float


def helps(work: Work, device: str) -> bool:
    """Whether a second process can judge: on a CPU with two threads or more, and room for an engine beside judges."""
    import torch

    shared = device == "cpu" and engines.quick_to_open(work.engine) and torch.get_num_threads() > 1
    return shared and os.name == "posix" and has_room(work, 1)


def has_room(work: Work, n_engines: int) -> bool:
    """Whether so many engines fill half of a CPU's memory at most."""
    return n_engines * needed(work, "cpu").total <= memory_bytes() / 2


def judged_by_either(work: Work) -> frozenset[int]:
    """The places of evaluators whose model fits where the engine was, so that this process may judge at the end, too.

    Files may hold half of float32's bytes.
    """
    room = needed(work, "cpu").total
    return frozenset(
        place
        for place, item in enumerate(work.evaluators)
        if isinstance(item.evaluator, ModelJudgeEvaluator) and 2 * file_bytes(locate(item.evaluator.model)) <= room
    )


class Colleague:
    """The second process, as this one knows it.  Where it is lost, what it was given is not judged, and no more."""

    def __init__(self, work: Work, second: SecondProcess | None = None) -> None:
        """In the `second` process, if it is there.

        Raises pickle.PicklingError, AttributeError or TypeError for an evaluator that no other process can have.
        """
        import torch

        told = pickle.dumps(work)
        self.threads: int = torch.get_num_threads()
        self.serves = has_room(work, 2)
        self.todo: dict[Judge | Serve, None] = {}  # in the order in which they are done
        self.done: dict[Unit, float] = {}  # and the seconds that each took
        self.is_lost = False
        self.since = time.perf_counter()
        self._began = self.since  # the first of what is to do
        self.second = second or SecondProcess()
        self._is_there = Flag()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._reader = Thread(target=_received, args=(self.second.line, self._hear), daemon=True)
        self._reader.start()
        self._tell(told)
        self._threads(max(1, self.threads // 2))

    @property
    def under_way_s(self) -> float:
        """For how long it is at the first of what is to do."""
        return time.perf_counter() - self._began if self._is_there.is_set() else 0.0

    def _hear(self, message: Any) -> None:
        self._began = time.perf_counter()
        self._is_there.set()
        if message != THERE:
            self._answers.put(message)

    def give(self, units: Sequence[Judge] | Sequence[Serve], samples: Samples | None = None) -> None:
        """Serve, or judge units of one point, whose completions are the `samples`."""
        if not self.is_lost:
            if not self.todo:
                self._began = time.perf_counter()
            self.todo |= dict.fromkeys(units)
            self._tell(pickle.dumps((units, samples)))

    def did(self, wait: bool = False) -> Iterator[Did]:
        """What was done since; at least one unit with `wait`, if there is any.  Raises what that process raised."""
        while not self.is_lost and (not self._answers.empty() or (wait and self.todo)):
            answer, wait = self._answers.get(), False
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                self.is_lost = True
                self.todo.clear()
                return
            self.todo.pop(answer.unit, None)
            self.done[answer.unit] = answer.duration_s
            yield answer

    @contextmanager
    def room(self) -> Iterator[None]:
        """This process' threads while it serves: half of all where that process starts or has work, else all."""
        import torch

        is_busy = bool(self.todo) or not self._is_there.is_set()
        torch.set_num_threads(max(1, self.threads // 2) if is_busy else self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(self.threads)

    def take_over(self) -> None:
        """All threads are that process' from its next unit on."""
        self._threads(self.threads)

    @property
    def state(self) -> str:
        """In words."""
        if self.is_lost:
            return f"its process was lost after {len(self._of(Judge))} verdicts; the others come later, here"
        return f"{len(self._of(Judge))} verdicts, {len(self.todo)} wait"

    def share(self) -> Share:
        served, judged = self._of(Serve), self._of(Judge)
        return Share(
            name="judging beside it", node="node 1", device="cpu", n_generated=len(served), n_judged=len(judged),
            generating_s=sum(served), judging_s=sum(judged), present_s=time.perf_counter() - self.since,
        )  # fmt: skip

    def _of(self, kind: type) -> list[float]:
        return [seconds for unit, seconds in self.done.items() if isinstance(unit, kind)]

    def close(self) -> None:
        self.second.close()
        self._reader.join()  # before the connection's number may be another file's
        self.second.line.close()

    def _threads(self, n: int) -> None:
        self._tell(pickle.dumps(n))

    def _tell(self, message: bytes) -> None:
        with suppress(OSError):  # lost: `did` says so
            self.second.line.send_bytes(message)


def _received(line: Connection, put: Callable[[Any], None]) -> None:
    """Hand on all that comes; None at the end."""
    with suppress(EOFError, OSError):
        while True:
            put(line.recv())
    put(None)


# ------------------------------------------------------------------------------------------ in the second process


def judge(descriptor: int) -> None:
    """Do what comes through a connection until it is closed."""
    line = Connection(descriptor)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as badness:
        badness.write("500")  # where memory runs out, better this process than the one that stores
    todo: SimpleQueue[tuple[Sequence[Judge] | Sequence[Serve], Samples | None]] = SimpleQueue()
    threads = [1]
    engines.engine_class(engines.QUICK[0])  # imports what takes seconds
    with set_aside(), suppress(EOFError, OSError):  # nobody is there any more
        work: Work = line.recv()
        line.send(THERE)
        Thread(target=_obey, args=(line, todo, threads), daemon=True).start()
        try:
            _do_all(work, todo, threads, line.send)
        except Exception as error:
            line.send(_portable(error))


def _obey(line: Connection, todo: Any, threads: list[int]) -> None:
    def put(message: Any) -> None:
        if message is None:
            os._exit(0)  # nobody waits for what is being done
        elif isinstance(message, int):
            threads[0] = message
        else:
            todo.put(message)

    _received(line, put)


def _do_all(work: Work, todo: Any, threads: list[int], send: Callable[[Did], None]) -> None:
    import torch

    quieten()

    def opened() -> Engine:
        return engines.engine_class(work.engine)(work.checkpoints, work.suite.dtype, "cpu")

    worker = Worker(work, opened, Judges("cpu"), room_for_both=True)
    while True:
        units, samples = todo.get()
        for unit in units:
            torch.set_num_threads(threads[0])
            started = time.perf_counter()
            events = list(worker.do(unit, samples))
            send(Did(unit, events, time.perf_counter() - started))


def _portable(error: BaseException) -> BaseException:
    """An exception that can be sent: a UserError is one line, others bring their traceback."""
    if isinstance(error, UserError):
        return error
    return RuntimeError("".join(traceback.format_exception(error)))
