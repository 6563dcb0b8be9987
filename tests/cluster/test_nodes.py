"""How many workers there is room for, and how many threads each may have."""

import sys

import pytest

from bench.cluster.nodes import Node, Places, Workers, connected, places
from bench.schema import UserError


def node(cpus: int, gpus: int = 0, alive: bool = True) -> Node:
    return Node("n", cpus, gpus, 8.0, alive)


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([node(8)], 4, Places(4, cpus=2, gpus=0, threads=2)),
        ([node(8)], 3, Places(3, cpus=2, gpus=0, threads=2)),  # 3 x 2 of 8: never more threads than cores
        ([node(8)], "auto", Places(8, cpus=1, gpus=0, threads=1)),
        ([node(64, gpus=8)], "auto", Places(8, cpus=8, gpus=1, threads=8)),
        ([node(64, gpus=8), node(4)], 2, Places(2, cpus=32, gpus=1, threads=32)),  # the node without a GPU has none
        ([node(64, gpus=8), node(64, gpus=3)], "auto", Places(11, cpus=8, gpus=1, threads=8)),
        ([node(6), node(4)], 4, Places(4, cpus=2, gpus=0, threads=2)),  # 3 + 2 places of two cores
        ([node(8), node(99, alive=False)], 8, Places(8, cpus=1, gpus=0, threads=1)),
    ],
)
def test_no_core_is_given_twice(nodes: list[Node], workers: Workers, expected: Places) -> None:
    assert places(nodes, workers) == expected


def test_fewer_threads_may_be_asked_for() -> None:
    assert places([node(8)], 2, most_threads=1) == Places(2, cpus=4, gpus=0, threads=1)


def test_an_engine_on_several_gpus_has_them_from_one_machine() -> None:
    """Engines of two GPUs: four on eight, one on three, none on one."""
    machines = [node(64, gpus=8), node(64, gpus=3), node(8, gpus=1)]
    assert places(machines, "auto", gpus_per_engine=2) == Places(5, cpus=16, gpus=2, threads=16)
    with pytest.raises(UserError, match="there is room for 5, one for each of the 2 GPUs of a machine"):
        places(machines, 6, gpus_per_engine=2)


@pytest.mark.parametrize(("nodes", "kind"), [([node(2)], "cores"), ([node(64, gpus=2)], "GPUs")])
def test_more_workers_than_places_are_refused(nodes: list[Node], kind: str) -> None:
    with pytest.raises(UserError, match=f"--workers 3: there is room for 2, one for each of the {kind}"):
        places(nodes, 3)


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'lerpbench\[ray\]'"), connected(None):
        pass
