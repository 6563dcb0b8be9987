"""What seats ask of Ray: an engine and its judges share a GPU, and GPUs that share an engine are of one machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_runs import RayHere, prepared, run_on

from bench.cluster.nodes import Places
from bench.cluster.seats import bundle, part, settings

# Machines with three GPUs and one, which Ray only counts; in a process that is connected to no other cluster.
MACHINES = """
import json, sys
import ray
from ray.cluster_utils import Cluster
from bench.cluster import seats
from bench.cluster.nodes import Places, nodes, places

class Where:
    def tell(self):
        import os
        return ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES")

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "num_gpus": 3, "include_dashboard": False})
cluster.add_node(num_cpus=1, num_gpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

def told(gpus):
    room = places(nodes(ray), "auto", gpus_per_engine=gpus)
    held = [seats.reserve(ray, room) for _ in range(room.workers)]
    roles = ["serve", "judge"]
    actors = [[seats.hired(ray, s, Where, seats.part(room, role, 2)) for role in roles] for s in held]
    found = [[ray.get(actor.tell.remote()) for actor in pair] for pair in actors]
    spare = seats.reserve(ray, room)
    waits = not spare.wait(1)
    for s in [*held, spare]:
        seats.leave(ray, s)
    return found, waits

print(json.dumps([told(1), told(2)]))
"""


def test_placement_on_machines_with_three_gpus_and_one() -> None:
    done = subprocess.run([sys.executable, "-c", MACHINES], check=True, capture_output=True, text=True, timeout=300)
    (pairs, full), (wide, no_room) = json.loads(done.stdout.splitlines()[-1])
    assert len(pairs) == 4 and full
    assert all(engine == judges for engine, judges in pairs)  # the same machine, the same GPU
    assert len({tuple(engine) for engine, _ in pairs}) == 4
    (((node, gpus), judges),) = wide
    assert len(gpus.split(",")) == 2 and judges[0] == node
    assert no_room  # two GPUs are left, one of each machine: not for one engine


@pytest.mark.parametrize(
    ("places", "engine", "judges"),
    [
        (Places(8, cpus=8, gpus=1, threads=8), (6.0, 0.75), (2.0, 0.25)),
        (Places(2, cpus=1, gpus=0, threads=1), (0.75, 0.0), (0.25, 0.0)),
        (Places(2, cpus=16, gpus=4, threads=16), (12.0, 4.0), (4.0, 0.0)),  # they look for the engine's first
    ],
)
def test_judges_have_a_quarter(places: Places, engine: tuple[float, float], judges: tuple[float, float]) -> None:
    found = [part(places, role, 2) for role in ("serve", "judge")]
    assert [(one["num_cpus"], one["num_gpus"]) for one in found] == [engine, judges]
    assert sum(one["num_cpus"] for one in found) == bundle(places)["CPU"]


def test_whoever_is_alone_in_a_seat_has_all_of_it() -> None:
    assert part(Places(8, cpus=8, gpus=2, threads=8), "serve", 1) == {"num_cpus": 8.0, "num_gpus": 2.0}


def test_a_run_has_an_actor_for_each_kind_of_unit_that_it_has(wide_suite: Path, tmp_path: Path) -> None:
    """A second run without its verdicts would need no engine; here nothing is stored, so every seat has both."""
    ray = RayHere()
    run_on(ray, prepared(wide_suite, ["base"]), tmp_path / "r.db")
    assert ray.seats == [{"CPU": 1}] * 2
    assert ray.asked == [{"CPU": 0.75, "GPU": 0}, {"CPU": 0.25, "GPU": 0}] * 2


def test_judges_of_an_engine_on_several_gpus_are_shown_its_first(
    wide_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")  # as Ray sets it for the engine
    ray = RayHere()
    run_on(ray, prepared(wide_suite, ["base"]), tmp_path / "r.db", workers=1, gpus=2)
    assert ray.seats == [{"CPU": 1, "GPU": 2}]
    assert ray.asked == [{"CPU": 0.75, "GPU": 2.0}, {"CPU": 0.25, "GPU": 0.0}]
    import os

    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"  # what the judges' process was set up with


def test_the_drivers_settings_of_vllm_hold_on_every_machine() -> None:
    assert settings({"LERPBENCH_VLLM_EAGER": "1", "HOME": "/root", "LERPBENCH_CACHE": "/c"}) == {
        "LERPBENCH_VLLM_EAGER": "1"
    }
