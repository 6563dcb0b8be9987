"""One small Ray cluster for all tests of this room, a suite that can be cut, and its run in this process."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_runs import prepared, run_in_process


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """Ray on this machine, with room for two workers whatever cores there are."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    ray.init("local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             object_store_memory=100 * 2**20)  # fmt: skip
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def wide_suite(tiny_suite: Path) -> Path:
    """The tiny suite with so many samples that its five prompts are three of the engine's batches; two judges."""
    path = tiny_suite.with_name("wide.yaml")
    lines = tiny_suite.read_text().replace("samples: 3", "samples: 220").replace("name: tiny", "name: wide")
    path.write_text(
        "".join(line for line in lines.splitlines(True) if "sentiment" not in line and "accept" not in line)
    )
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, wide_suite: Path) -> Path:
    """The database of one run in this process."""
    path = tmp_path_factory.mktemp("finished") / "r.db"
    run_in_process(prepared(wide_suite), path)
    return path
