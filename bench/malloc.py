"""What glibc's malloc does with memory that is freed: mallopt(3), malloc_trim(3).  Nothing with another C library.

By itself it hands much of that back to the system, which gives the next tensor pages of zeros, one fault each: on a CPU
an eighth of a judge's time (docs/SPEED.md).
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
SMALL, LARGE, ENDLESS = 2**16, 2**25, 2**31 - 1  # bytes; LARGE is the most that glibc allows for a block


_returns = ContextVar("_returns", default=False)  # whether this is inside `returning_freed`


def keep_freed() -> None:
    """From now on freed memory is kept for what comes next, but for tensors of 32 MiB and more."""
    if not _returns.get():
        _set(mmap_threshold=LARGE, trim_threshold=ENDLESS)


@contextmanager
def returning_freed() -> Iterator[None]:
    """Inside, freed memory goes back at once, so that memory held is memory in use, whoever asks to keep it.  Not for
    timing."""
    token = _returns.set(True)
    _set(mmap_threshold=SMALL, trim_threshold=SMALL)
    try:
        yield
    finally:
        _returns.reset(token)
        keep_freed()


def trim() -> None:
    """Give back what is free now."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _set(mmap_threshold: int, trim_threshold: int) -> None:
    """The bytes from which on a block, or the end of the heap, comes from the system and returns to it."""
    with suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, mmap_threshold)
        library.mallopt(M_TRIM_THRESHOLD, trim_threshold)
