"""What becomes of freed memory, as the kernel counts it: pages of zeros that a process asked for."""

import platform
import subprocess
import sys

import pytest

PROBE = """
import resource, torch
from bench import malloc
getattr(malloc, {name!r})()
def work():
    return [torch.ones(2**20) for _ in range(20)]  # 4 MiB each
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(name: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROBE.format(name=name)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_or_returned() -> None:
    pages = 5 * 20 * 2**22 // 4096  # of what the probe fills
    assert faults("keep_freed") < pages / 10 < pages / 2 < faults("return_freed")
