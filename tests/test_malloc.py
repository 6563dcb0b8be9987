"""What becomes of freed memory, as the kernel counts it: pages of zeros that a process asked for."""

import platform
import subprocess
import sys

import pytest

PROBE = """
import resource, torch
from contextlib import nullcontext
from bench import malloc
def work():
    return [torch.ones(2**20) for _ in range(20)]  # 4 MiB each
def faults(inside):
    with inside:
        malloc.keep_freed()  # as loading a model does
        work()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            work()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(malloc.returning_freed()), faults(nullcontext()))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_and_returned_where_it_is_counted() -> None:
    pages = 5 * 20 * 2**22 // 4096  # of what the probe fills
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    returned, kept = map(int, done.stdout.split())
    assert kept < pages / 10 < pages / 2 < returned
