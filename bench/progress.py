"""Progress of long work: what the work tells, and what someone who waits sees.

A `Task` opens a stage (its title, how much there is) and yields the `Advance` that is told how much was done.
"""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

from bench.terminal import shown

Advance = Callable[[int], None]  # told how many completions, texts or points were finished
Task = Callable[[str, int], AbstractContextManager[Advance]]

Tracker = Literal["trackio", "wandb"]  # a package that is told of results too: `bench.run.tracking`

EVERY_S = 30.0  # between two lines where nobody watches a bar


def silent(_: int) -> None:
    """Progress that nobody watches."""


@contextmanager
def silently(title: str, total: int) -> Iterator[Advance]:
    """A task that shows nothing."""
    yield silent


@contextmanager
def on_terminal(title: str, total: int) -> Iterator[Advance]:
    """On standard error: a bar where someone watches, else a line at both ends and every half minute between."""
    with (_bar if sys.stderr.isatty() else _lines)(title, total) as advance:
        yield advance


def line(advance: Advance, who: str, what: str) -> None:
    """What one of several workers is at: a line under the bar, where the task shows any."""
    if isinstance(advance, Shown):
        advance.lines[who] = what


class Shown(ABC):
    """An advance with lines under it, a worker each."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}

    @abstractmethod
    def __call__(self, n: int) -> None: ...


@contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    from rich import progress
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    columns = (
        progress.TextColumn("{task.description}", markup=False), progress.BarColumn(), progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(), progress.TextColumn("left"), progress.TimeRemainingColumn(),
    )  # fmt: skip
    bar = progress.Progress(*columns)
    task = bar.add_task(shown(title), total=total)

    class Bar(Shown):
        def __call__(self, n: int) -> None:
            bar.advance(task, n)

    advance = Bar()

    def seen() -> Group:
        workers = [Text(shown(f"  {who}: {what}"), no_wrap=True) for who, what in list(advance.lines.items())]
        return Group(bar.get_renderable(), *workers)

    with Live(get_renderable=seen, console=Console(stderr=True)):
        yield advance


@contextmanager
def _lines(title: str, total: int) -> Iterator[Advance]:
    started = last = time.perf_counter()
    done = 0

    class Lines(Shown):
        def __call__(self, n: int) -> None:
            nonlocal done, last
            done += n
            now = time.perf_counter()
            if done < total and now - last >= EVERY_S:
                last = now
                _tell(f"{title}: {_state(done, total, now - started)}")
                for who, what in self.lines.items():
                    _tell(f"  {who}: {what}")

    _tell(f"{title}: {total} ...")
    yield Lines()
    _tell(f"{title}: done in {time.perf_counter() - started:.1f} s")


def _state(done: int, total: int, seconds: float) -> str:
    if not done:
        return f"0 of {total}"
    return f"{done} of {total}, {done / seconds:.3g} a second, {about(seconds / done * (total - done))} left"


def _tell(line: str) -> None:
    print(shown(line), file=sys.stderr, flush=True)


def about(seconds: float) -> str:
    """A duration in the unit that a reader would choose: 45 s, 12 min, 3.4 h, 12 days."""
    for unit, size in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}" if seconds >= 10 * size else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
