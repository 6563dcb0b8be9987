"""What a worker asks Ray for: a place on one machine, and actors that share it.

A seat is a placement group, so that its cores and all its GPUs are of one machine.  Its engine and its judges are
actors of their own, which take turns: each keeps its models, and completions go from one to the other through the
object store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.cluster.agenda import Role
from bench.cluster.nodes import Places

JUDGES_SHARE = 0.25  # of a seat's cores, and of its GPU
VLLM = "LERPBENCH_VLLM_"  # settings of the driver that hold for every worker


@dataclass(frozen=True)
class Inside:
    """What an actor's process is set up with, before anything looks for a device."""

    threads: int
    environment: Mapping[str, str]


def bundle(places: Places) -> dict[str, int]:
    """What a seat reserves of one machine."""
    return {"CPU": places.cpus} | ({"GPU": places.gpus} if places.gpus else {})


def part(places: Places, role: Role, roles: int) -> dict[str, float]:
    """What an actor takes of its seat.

    An engine on several GPUs takes them whole, as Ray gives no other part of several; its judges look for the first.
    """
    share = 1.0 if roles == 1 else JUDGES_SHARE if role == "judge" else 1 - JUDGES_SHARE
    shared = places.gpus * share
    gpus = shared if places.gpus <= 1 or roles == 1 else float(places.gpus if role == "serve" else 0)
    return {"num_cpus": places.cpus * share, "num_gpus": gpus}


def reserve(ray: Any, places: Places) -> Any:
    """A seat; it is there when a machine has room for it."""
    return ray.util.placement_group([bundle(places)], strategy="STRICT_PACK")


def hired(ray: Any, seat: Any, cls: type, needs: Mapping[str, float], *arguments: Any) -> Any:
    """An actor in a seat; lost once, it does not come back by itself."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    where = PlacementGroupSchedulingStrategy(seat, placement_group_bundle_index=0)
    return ray.remote(cls).options(**needs, max_restarts=0, scheduling_strategy=where).remote(*arguments)


def leave(ray: Any, seat: Any) -> None:
    """Give a seat back; its actors end."""
    ray.util.remove_placement_group(seat)


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Of the driver's environment, what its workers must have too, whichever machine they are on."""
    return {name: value for name, value in environment.items() if name.startswith(VLLM)}
