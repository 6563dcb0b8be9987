"""Progress on the terminal: a bar a stage where someone watches, a line a stage where the output is a file."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.serving import Advance


class TerminalReporter:
    """Implements `bench.execute.Reporter` on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        if not sys.stderr.isatty():
            started = time.perf_counter()
            print(f"{title}: {total} ...", file=sys.stderr, flush=True)
            yield lambda _: None
            print(f"{title}: done in {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=total)
            yield lambda n: progress.advance(task, n)
