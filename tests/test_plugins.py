"""A third party's package, really built and installed, used by the command line like what is ours."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent / "plugin_project"
Lerpbench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def lerpbench(tmp_path_factory: pytest.TempPathFactory) -> Lerpbench:
    """Runs the command in an environment with the plugin; building needs no network."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PROJECT, folder / "project")  # setuptools builds in the project's own folder
    site = folder / "site"
    pip = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    subprocess.run([sys.executable, "-m", *pip, str(folder / "project")], check=True, timeout=120)
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)

    return run


@pytest.fixture
def suite(tiny_suite: Path, tmp_path: Path) -> Path:
    """The tiny models, the plugin's method, and evaluators of both houses."""
    text = tiny_suite.read_text().replace("./", f"{tiny_suite.parent}/")
    models = text.partition("methods:")[0]
    methods = "methods:\n  - base\n  - task_vector: {alpha: [0.5, 1]}\n"
    evaluators = "evaluators:\n  - shouting: {marks: 'aeiou'}\n  - fragile\n  - distinct\n"
    path = tmp_path / "plugged.yaml"
    path.write_text(models + methods + evaluators)
    return path


def test_a_plugin_is_listed_and_what_breaks_in_it_is_named(lerpbench: Lerpbench) -> None:
    listed = lerpbench("evaluators")
    assert listed.returncode == 0, listed.stderr
    lines = {name: line for line in listed.stdout.splitlines() for name in line.split()[1:2]}
    assert "The share of completions with one of the marks." in lines["shouting"]
    assert "broken: evaluator 'absent' cannot be loaded from" in lines["absent"]
    assert "distinct" in lines and "perplexity" in lines
    assert "task_vector" in lerpbench("methods").stdout


def test_one_evaluator_shows_fields_defaults_metrics_definitions_and_source(lerpbench: Lerpbench) -> None:
    shown = " ".join(lerpbench("evaluators", "shouting").stdout.split())
    for part in ("Source: nobody's paper", "marks", "str", "'!'", "the characters that count as shouting",
                 "shouting", "lower", "share", "completions with one of !"):  # fmt: skip
        assert part in shown, part
    refused = lerpbench("evaluators", "absent")
    assert refused.returncode == 2
    assert "lerpbench: evaluator 'absent' cannot be loaded" in refused.stderr


def test_a_suite_uses_it_and_what_breaks_stops_nothing_else(lerpbench: Lerpbench, suite: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    result = lerpbench("run", suite, "--db", db, "--site", tmp_path / "site", "--limit-prompts", 1)
    assert result.returncode == 1
    line, rest = [line for line in result.stderr.splitlines() if line.startswith("lerpbench: ")]
    assert line.startswith("lerpbench: evaluator 'fragile' broke at base: ZeroDivisionError: nothing to divide by (")
    assert line.endswith("), and at 2 more") and "all else is stored" in rest and "lerpbench_shouting.py:" in line
    with sqlite3.connect(db) as connection:
        rows = connection.execute("SELECT DISTINCT method, params, metric FROM results").fetchall()
        texts = connection.execute("SELECT text FROM completions WHERE method = 'base'").fetchall()
        (share,) = connection.execute(
            "SELECT value FROM results WHERE method = 'base' AND metric = 'shouting' AND prompts IS NULL"
        ).fetchone()
    points = {("base", "{}"), ("task_vector", '{"alpha":0.5}'), ("task_vector", '{"alpha":1.0}')}
    metrics = {"shouting", *(f"distinct_{n}{kind}" for n in (1, 2, 3) for kind in ("", "_dexperts"))}
    assert {row[2] for row in rows} == metrics
    assert {row[:2] for row in rows} == points and len(rows) == len(points) * len(metrics)
    assert share == pytest.approx(sum(any(c in text for c in "aeiou") for (text,) in texts) / len(texts))
    assert (tmp_path / "site" / "index.html").is_file()
