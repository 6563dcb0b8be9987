"""A measured database whose checkpoints are, by name, on the hub; a stand-in for the hub; and the command line."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import standin
from standin import ROOT, Lerpbench

import evaluators
import methods
from bench import engines, environment
from bench.progress import silently
from bench.run.prepare import prepare
from bench.run.stages import Run
from bench.store.write import Store
from bench.suite.load import load_suite
from evaluators.judges import Judges


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny_suite: Path) -> Path:
    """The tiny suite, run whole."""
    path = tmp_path_factory.mktemp("measured") / "tiny.db"
    registries = methods.registry(), evaluators.registry()
    work = prepare(load_suite(str(tiny_suite), *registries), *registries, "transformers", 1)
    with closing(Store.open(path)) as store:
        details = {"commit": "abc", "cores": 2, "device": "cpu", "processor": "Test CPU"}
        one_run = Run(work, store, store.environment(details, environment.digest(details)), silently)
        one_run.execute(lambda: engines.engine_class("transformers")(work.checkpoints, "float32", "cpu"), Judges("cpu"))
    return path


@pytest.fixture(scope="session")
def on_the_hub(measured: Path, tiny_trio: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same database with checkpoints that are named after models on the hub."""
    path = tmp_path_factory.mktemp("named") / "tiny.db"
    path.write_bytes(measured.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        for name, folder in tiny_trio.items():
            connection.execute(
                "UPDATE suites SET definition = replace(definition, ?, ?)", [f'"{folder}"', f'"ann/{name}"']
            )
        connection.commit()
    with closing(Store.open(path, checked=False)) as store:
        store.seal()
    return path


@pytest.fixture
def hub() -> Iterator[standin.Hub]:
    with standin.running() as found:
        yield found


@pytest.fixture
def lerpbench(hub: standin.Hub, tmp_path: Path) -> Lerpbench:
    """lerpbench(arguments, token=...) -> the finished command, for which the stand-in is the hub."""

    def run(*arguments: object, token: str = standin.TOKEN, **more: str) -> subprocess.CompletedProcess[str]:
        here = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path),
                "HF_TOKEN": token, "PYTHONPATH": str(ROOT)}  # fmt: skip
        command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
        environ = os.environ | here | more
        return subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False
        )

    return run
