"""The machine as the overhead ledger sees it: waiting for the device, its memory, and who else uses the processor.

Memory is the device's: allocated bytes on CUDA, resident bytes of this process on a CPU.
"""

import os
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

import torch

from bench import malloc

OTHERS_SHARE = 0.1  # of all cores: other programs may take this much before a machine counts as busy


class Machine(Protocol):
    """What timing needs of a device."""

    def synchronize(self) -> None:
        """Return when the device has finished what it was given."""
        ...

    def exact(self) -> AbstractContextManager[None]:
        """Inside, freed memory is given back at once, so that memory held is memory in use.  Not for timing."""
        ...

    def memory_bytes(self) -> int | None:
        """Memory in use, after giving back what is free; None where it cannot be known."""
        ...

    def reset_peak(self) -> None: ...

    def peak_bytes(self) -> int | None:
        """Most memory in use since `reset_peak`; None where it cannot be known."""
        ...


def machine(device: str) -> Machine:
    return Cuda() if device.startswith("cuda") else Cpu()


class Cuda:
    """One NVIDIA GPU through torch's allocator, which vLLM uses too."""

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def exact(self) -> AbstractContextManager[None]:
        return nullcontext()

    def memory_bytes(self) -> int | None:
        torch.cuda.empty_cache()
        return int(torch.cuda.memory_allocated())

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int | None:
        return int(torch.cuda.max_memory_allocated())


class Cpu:
    """This process, from /proc (Linux); elsewhere memory is unknown."""

    def __init__(self) -> None:
        self._is_reset = False

    def synchronize(self) -> None:
        """CPU tensors are ready when their call returns."""

    def exact(self) -> AbstractContextManager[None]:
        return malloc.returning_freed()

    def memory_bytes(self) -> int | None:
        malloc.trim()
        return status_bytes("VmRSS")

    def reset_peak(self) -> None:
        self._is_reset = False
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS: proc(5)
            self._is_reset = True

    def peak_bytes(self) -> int | None:
        return status_bytes("VmHWM") if self._is_reset else None


def status_bytes(field: str) -> int | None:
    """A memory field of /proc/self/status."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


# ---------------------------------------------------------------------------------------------- other programs


class LoadWatch:
    """Who else computes while we time: the load average before, and the cores that others took meanwhile."""

    def __init__(self) -> None:
        self.cores = os.cpu_count() or 1
        self.load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self._start = time.monotonic(), busy_s(), time.process_time()

    def facts(self) -> dict[str, Any]:
        """`busy` is true where others took more than a tenth of the cores; where that is unknown, where the load before
        was above the core count (which may be this process' own doing)."""
        others = self.others_cores()
        loaded = self.load_average is not None and self.load_average > self.cores
        return {
            "cores": self.cores,
            "load_average": self.load_average,
            "others_cores": others,
            "busy": loaded if others is None else others > OTHERS_SHARE * self.cores,
        }

    def others_cores(self) -> float | None:
        """Mean number of cores that other programs used since the start; None where /proc is not there."""
        started, busy, own = self._start
        now, busy_now = time.monotonic(), busy_s()
        if busy is None or busy_now is None or now - started < 0.5:
            return None
        return round(max(0.0, (busy_now - busy) - (time.process_time() - own)) / (now - started), 2)


def busy_s() -> float | None:
    """Processor seconds of all programs since the machine started (user, nice, system, irq, softirq, steal)."""
    try:
        fields = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]
    except OSError:
        return None
    ticks = [int(field) for field in fields]
    return sum(ticks[i] for i in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")
