"""Workers by the commands and from Python."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import lerpbench as lb
from bench.cli import app
from bench.progress import silently


def test_a_run_with_workers_is_planned_done_and_shown(ray: Any, tiny_suite: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"db": tmp_path / "r.db", "only": ["base", "dexperts"]}
    outcome = lb.run(tiny_suite, **given, workers=2, task=silently)
    # base, of which DExperts at alpha 0 is another in logits, and DExperts at 1; four judges each.
    assert sum(share.units for share in outcome.shares) == 3 + 3 * 4
    assert all(str(share).endswith("% busy") and "(cpu)" in str(share) for share in outcome.shares)
    assert not outcome.problems
    assert {row["method"] for row in outcome.rows} == {"base", "dexperts"}
    alone, two = (lb.plan(tiny_suite, db=given["db"], workers=n) for n in (None, 2))
    assert alone.seconds is not None and two.seconds is not None
    assert alone.seconds / 2 <= two.seconds < alone.seconds


def test_experts_are_made_before_the_workers_start(
    ray: Any, tiny_trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LERPBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("good", "bad"):
        (tmp_path / f"{name}.txt").write_text(f"The movie was {name}.\nThe actors are {name}.")
    texts = {name: {"source": str(tmp_path / f"{name}.txt")} for name in ("good", "bad")}
    suite = {
        "name": "made",
        "checkpoints": {"base": str(tiny_trio["base"])},
        "finetune": {"batch_size": 2, "steps": 2, "learning_rate": 1e-3, "experts": {
            "expert": {"train": texts["good"], "validation": texts["good"]},
            "antiexpert": {"train": texts["bad"], "validation": texts["bad"]},
        }},
        "prompts": {"n": texts["good"]},
        "sampling": {"samples": 1, "max_new_tokens": 2},
        "methods": [{"g1": {"alpha": [0, 1]}}],
        "evaluators": ["distinct"],
    }  # fmt: skip
    outcome = lb.run(suite, tmp_path / "r.db", engine="transformers", workers=2, task=silently)
    assert not outcome.problems and {row["alpha"] for row in outcome.rows} == {0, 1}


def test_the_cluster_is_shown(ray: Any) -> None:
    shown = CliRunner().invoke(app, ["doctor", "--ray", "auto"]).output
    assert "alive" in shown and "--workers auto: 2, 1 threads each" in shown


@pytest.mark.parametrize("given", ["0", "many", "-1"])
def test_what_is_no_number_of_workers_is_refused(given: str, tiny_suite: Path, tmp_path: Path) -> None:
    with pytest.raises(lb.UserError, match=rf"--workers {given}: expected a number from 1 on, or auto"):
        lb.plan(tiny_suite, db=tmp_path / "r.db", workers=given)


def test_ray_is_loaded_when_it_is_used() -> None:
    code = "import sys, bench.cluster.crew, lerpbench.api, lerpbench.extent; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
