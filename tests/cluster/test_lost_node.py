"""A machine that is taken away: the run goes on with those that are left, and its views are the in-process run's."""

import json
import os
import subprocess
import sys
from pathlib import Path

from cluster_runs import view

# Ray's own test cluster; in a process that is connected to no other one.  Machine 1 holds no worker, but the driver.
MACHINES = """
import json, sys
from contextlib import contextmanager
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from cluster_runs import prepared, run_on

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

@contextmanager
def losing(title, total):
    done = 0

    def advance(n):
        nonlocal done
        done += n
        if done == 20:  # 18 pieces and 12 verdicts: while a point is judged
            cluster.remove_node(machines.pop(), allow_graceful=False)

    yield advance

run, shares = run_on(ray, prepared(Path(sys.argv[1])), Path(sys.argv[2]), task=losing)
found = [len(machines), len(shares), sum(s.units for s in shares), run.failed, run.broken]
Path(sys.argv[3]).write_text(json.dumps(found))
"""


def test_a_lost_machine_changes_nothing(finished: Path, wide_suite: Path, tmp_path: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    found = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "-c", MACHINES, str(wide_suite), str(tmp_path / "r.db"), str(found)],
        env=os.environ | {"PYTHONPATH": paths, "RAY_max_direct_call_object_size": "1000"},  # answers stay where made
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert found.is_file(), done.stderr[-3000:]  # how the processes of a torn cluster end is Ray's affair
    machines, workers, units, failed, broken = json.loads(found.read_text())
    assert machines == 1 and not failed and not broken
    assert workers >= 2 and units == 6 * 3 + 6 * 2
    for name in ("results", "completions"):
        assert view(tmp_path / "r.db", name) == view(finished, name)
