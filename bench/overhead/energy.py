"""What the device draws: a counter of joules, read before and after a timed call.

NVIDIA GPUs keep one (NVML's total energy consumption), processors keep one for each package (RAPL, through Linux's
powercap).  A counter moves in ticks; a call that is not much longer than a tick has no joules of its own.  It counts
all that the device draws, idle power and other programs included.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TICKS = 10  # that a call must last: then the counter's step is at most a tenth of what it shows
PATIENCE_S = 0.5  # to see a counter move
POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Meter:
    """`joules`: drawn since some moment, or None with the `reason`.  `tick_s`: seconds between two moves of it."""

    source: str = ""
    joules: Callable[[], float] | None = None
    tick_s: float = 0.0
    reason: str = "no power reading"

    @property
    def why_not(self) -> str:
        """Why a call has no joules."""
        if self.joules is None:
            return self.reason
        return f"a call takes less than {TICKS} ticks of {self.source}, which moves every {self.tick_s * 1e3:.3g} ms"

    def read(self) -> float | None:
        return self.joules() if self.joules is not None else None

    def drawn(self, before: float | None, seconds: float) -> float | None:
        """Joules since `before`, a reading that is `seconds` old; None where that is too short to be told."""
        now = self.read()
        if now is None or before is None or now < before or seconds < TICKS * self.tick_s:
            return None
        return now - before


NO_METER = Meter()


def find_meter(device: str, gpus: int = 1) -> Meter:
    """The counter of the device that is timed: of so many GPUs, or of this machine's processors."""
    try:
        source, joules = nvml(gpus) if device.startswith("cuda") else rapl()
        return Meter(source, joules, tick(joules))
    except LookupError as error:
        return Meter(reason=f"no power reading: {error.args[0]}")


def tick(joules: Callable[[], float], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds between two moves of a counter, waited for."""
    moved: list[float] = []
    last, until = joules(), clock() + PATIENCE_S
    while len(moved) < 4 and clock() < until:
        now = joules()
        if now != last:
            moved.append(clock())
            last = now
    if len(moved) < 2:
        raise LookupError("the counter does not move")
    return (moved[-1] - moved[0]) / (len(moved) - 1)


def nvml(gpus: int) -> tuple[str, Callable[[], float]]:
    """The sum over torch's first GPUs.  Raises LookupError where it cannot be read."""
    import torch

    try:
        import pynvml
    except ImportError as error:
        raise LookupError('NVML is read through the extra "energy": pip install "lerpbench[energy]"') from error
    try:
        pynvml.nvmlInit()
        names = [f"GPU-{torch.cuda.get_device_properties(i).uuid}" for i in range(gpus)]
        handles = [pynvml.nvmlDeviceGetHandleByUUID(name) for name in names]
        [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles]
    except pynvml.NVMLError as error:
        raise LookupError(f"NVML: {error}") from error
    return f"NVML, {gpus} GPU{'s' if gpus > 1 else ''}", lambda: sum(
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        for handle in handles  # it counts millijoules
    )


def rapl(root: Path = POWERCAP) -> tuple[str, Callable[[], float]]:
    """The sum over processor packages, which goes on where a counter starts over.  Raises LookupError for none."""
    packages = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
    if not packages:
        raise LookupError(f"no RAPL counters in {root}")
    try:
        counters = [Unwound(zone / "energy_uj", _number(zone / "max_energy_range_uj")) for zone in packages]
        [counter() for counter in counters]
    except OSError as error:
        raise LookupError(f"RAPL: {error.filename}: {error.strerror}") from error
    named = f"RAPL, {len(packages)} package{'s' if len(packages) > 1 else ''}"
    return named, lambda: sum(counter() for counter in counters) / 1e6


@dataclass
class Unwound:
    """A counter of microjoules that starts over at `top`, as one that does not."""

    path: Path
    top: int
    last: int | None = None
    rounds: int = 0

    def __call__(self) -> int:
        now = _number(self.path)
        if self.last is not None and now < self.last:
            self.rounds += 1
        self.last = now
        return now + self.rounds * self.top


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def gpus_in_use() -> int:
    """GPUs that share one engine."""
    return int(os.environ.get("LERPBENCH_VLLM_TENSOR_PARALLEL", "1"))
