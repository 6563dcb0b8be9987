"""Python's garbage collector, where looking at everything costs more than there is to find.

The packages behind an engine make half a million objects and no garbage: collections while they are imported take a
third of the time, and each full one afterwards a quarter of a second (docs/SPEED.md).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Inside, nothing is collected unless it is asked for."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def set_aside() -> Iterator[None]:
    """Inside, collections pass over what is there already, so that they are quick.

    What is garbage by then stays until the first full collection after the outermost of these.
    """
    outermost = gc.get_freeze_count() == 0
    gc.freeze()
    try:
        yield
    finally:
        if outermost:
            gc.unfreeze()
