"""The simple model beside the measurement: how fast a decoding step could be if only arithmetic and memory counted.

A step of m members of N parameters each over B rows does 2 m N B FLOPs, plus attention, and reads every member's
weights once and every row's keys and values.  Its least time is the larger of FLOPs / (FLOP/s) and
bytes / (bytes/s), both rates measured on this machine just after the timing (the roofline of Williams et al. 2009).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bench.suite.architecture import architecture
from bench.suite.checkpoints import Checkpoint, header

SIDE = 1024  # of the matrices whose product gives the FLOP/s
REPEATS = 5  # the fastest counts: the model is a limit
LARGEST = 2**28  # elements read at most when the bandwidth is measured


@dataclass(frozen=True)
class Shape:
    """What a step's cost depends on."""

    parameters: int
    layers: int
    width: int
    bytes_per_value: int
    kv_values: int  # in the key-value cache for one token


@dataclass(frozen=True)
class Rates:
    """What the machine does at its best."""

    flops_per_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class StepCost:
    """FLOPs and bytes of one decoding step over all rows."""

    flops: float
    bytes: float

    def least_s(self, rates: Rates) -> float:
        return max(self.flops / rates.flops_per_s, self.bytes / rates.bytes_per_s)


def shape_of(checkpoint: Checkpoint, dtype: str) -> Shape:
    """From the files' headers and the config."""
    found = architecture(checkpoint)
    return Shape(
        parameters=sum(math.prod(shape) for shape in header(checkpoint).values()),
        layers=found.layers,
        width=found.width,
        bytes_per_value=getattr(torch, dtype).itemsize,
        kv_values=found.kv_values_per_token,
    )


def step_cost(shape: Shape, members: int, batch_size: int, context: float) -> StepCost:
    """context: mean number of positions that a new token attends to."""
    attention = 4 * shape.layers * shape.width * context  # queries x keys and weights x values, a row
    cache = shape.kv_values * context  # a row
    return StepCost(
        flops=members * batch_size * (2 * shape.parameters + attention),
        bytes=members * shape.bytes_per_value * (shape.parameters + batch_size * cache),
    )


def measure_rates(device: str, dtype: str, parameters: int) -> Rates:
    """Best FLOP/s of a square matrix product, and best bytes/s of a matrix-vector product as large as the weights."""
    kind = getattr(torch, dtype)
    square = torch.ones(SIDE, SIDE, dtype=kind, device=device)
    rows = max(1, min(parameters, LARGEST) // SIDE)
    tall, vector = torch.ones(rows, SIDE, dtype=kind, device=device), torch.ones(SIDE, dtype=kind, device=device)
    return Rates(
        flops_per_s=2 * SIDE**3 / fastest_s(lambda: square @ square, device),
        bytes_per_s=tall.numel() * kind.itemsize / fastest_s(lambda: tall @ vector, device),
    )


def fastest_s(work: Callable[[], Any], device: str) -> float:
    """Seconds of the fastest of some calls, after one that does not count."""
    seconds = []
    for _ in range(REPEATS + 1):
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
