"""A second Python, which imports what serving and judging take before anyone knows what there is to do.

It may be started first of all: the imports take seconds, and nothing here needs them.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing import Pipe
from pathlib import Path

from bench import engines

AHEAD = 6  # mixtures that are served and judged before all others, where somebody waits for first results
ENOUGH = 2 * AHEAD  # mixtures for which first results, and a second process, are worth what they cost
ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd")


class SecondProcess:
    """It waits for a work; what is asked and answered then is `bench.run.judging`'s."""

    def __init__(self) -> None:
        ours, theirs = Pipe()
        paths = os.pathsep.join(path or "." for path in sys.path)
        command = f"from bench.run.judging import judge; judge({theirs.fileno()})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command], pass_fds=[theirs.fileno()],
            env={"GOMP_SPINCOUNT": "10000", **os.environ, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt is for this process, which then ends that one
        )  # fmt: skip
        theirs.close()
        self.line = ours

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def begun(engine: str, n_points: int) -> Iterator[SecondProcess | None]:
    """One that ends with the context, where it may help and the machine has room for it; else None."""
    with ExitStack() as stack:
        second = None
        if may_help(engine, n_points):
            with suppress(OSError):  # no process is left: all is done in this one
                second = stack.enter_context(closing(SecondProcess()))
        yield second


def may_help(engine: str, n_points: int) -> bool:
    """Whether a second process may turn out to help a run here, as far as is known before torch is imported."""
    quick = engine == "auto" or (engine in engines.TABLE and engines.quick_to_open(engine))
    alone = os.cpu_count() == 1 or os.environ.get("OMP_NUM_THREADS") == "1"
    on_cpu = not any(Path(device).exists() for device in ACCELERATORS)
    return n_points >= ENOUGH and quick and on_cpu and not alone and os.name == "posix"
