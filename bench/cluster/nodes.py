"""Where workers can be: this machine, or a Ray cluster; how many there are, and how many threads each may have."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from bench.schema import UserError

Workers = int | Literal["auto"]


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    name: str
    cpus: int
    gpus: int
    memory_gib: float
    alive: bool


@dataclass(frozen=True)
class Places:
    """So many workers, each with its part of one machine: its cores, and the GPUs that share its engine."""

    workers: int
    cpus: int
    gpus: int
    threads: int


def places(
    nodes: Sequence[Node], workers: Workers, most_threads: int | None = None, gpus_per_engine: int = 1
) -> Places:
    """One worker for each GPU, or each `gpus_per_engine` of a machine, where there are GPUs, else so many as are asked
    for; no core is given twice.

    `auto`: all GPUs, else a worker a core.  Raises UserError where there is no room for so many.
    """
    alive = [node for node in nodes if node.alive]
    on_gpus = any(node.gpus for node in alive)

    def room(threads: int) -> int:
        return sum(
            min(node.cpus // threads, node.gpus // gpus_per_engine) if on_gpus else node.cpus // threads
            for node in alive
        )

    n = room(1) if workers == "auto" else workers
    if n < 1 or room(1) < n:
        kind = "cores" if not on_gpus else "GPUs" if gpus_per_engine == 1 else f"{gpus_per_engine} GPUs of a machine"
        raise UserError(f"--workers {workers}: there is room for {room(1)}, one for each of the {kind}")
    threads = max(t for t in range(1, max(node.cpus for node in alive) + 1) if room(t) >= n)
    return Places(n, threads, gpus_per_engine if on_gpus else 0, min(threads, most_threads or threads))


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, on this machine alone (None) or on the cluster of an address; a program's own connection is left as it is.

    Raises UserError where Ray is not installed or nothing answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # workers are what the run is for, not its background
    try:
        import ray
    except ImportError as error:
        raise UserError("several workers need Ray: pip install 'lerpbench[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(address or "local", include_dashboard=None if address else False, log_to_driver=False,
                 logging_level="ERROR")  # fmt: skip
    except ConnectionError as error:
        raise UserError(f"--ray {address}: no Ray cluster answers there") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def nodes(ray: Any) -> list[Node]:
    return [_node(found) for found in ray.nodes()]


def _node(found: Mapping[str, Any]) -> Node:
    has = found["Resources"]
    return Node(found["NodeManagerHostname"], int(has.get("CPU", 0)), int(has.get("GPU", 0)),
                has.get("memory", 0) / 2**30, found["Alive"])  # fmt: skip


def this_machine() -> Node:
    """Without asking Ray."""
    import torch

    from bench import environment

    return Node(
        "this machine", os.cpu_count() or 1, torch.cuda.device_count(), environment.memory_bytes() / 2**30, True
    )


def number(given: str) -> Workers:
    """`auto` or how many.  Raises UserError."""
    if given == "auto":
        return "auto"
    if given.isdigit() and int(given):
        return int(given)
    raise UserError(f"--workers {given}: expected a number from 1 on, or auto")


def most_threads() -> int | None:
    """What OMP_NUM_THREADS allows."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else None
