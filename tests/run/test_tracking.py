"""What a tracker hears of a run: names and numbers by hand, a stand-in for wandb, and trackio itself."""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lerpbench as lb
from bench.run.tracking import entry
from bench.schema import Estimate, Point, Recipe, UserError

G2 = Point(method="g2", params={"alpha": 0.5, "text": "x"}, recipe=Recipe(space="weights", coefficients={"base": 1}))


def test_an_entry_has_values_and_ends_over_all_prompts() -> None:
    estimates = [
        Estimate(metric="sentiment", prompts=None, value=0.7, low=0.6, high=0.8),
        Estimate(metric="sentiment", prompts="neutral", value=0.1),
        Estimate(metric="length", prompts=None, value=30.0),
        Estimate(metric="toxicity", prompts=None, value=None, reason="refused"),
    ]
    assert entry(G2, estimates) == {
        "point": "g2(alpha=0.5, text=x)", "g2/alpha": 0.5, "g2/sentiment": 0.7, "g2/sentiment/low": 0.6,
        "g2/sentiment/high": 0.8, "g2/length": 30.0,
    }  # fmt: skip
    assert entry(G2, estimates[3:]) == {}


class Wandb(SimpleNamespace):
    """As much of the package as is asked."""

    def __init__(self) -> None:
        super().__init__(heard=[], logged=[])

    def init(self, **given: Any) -> None:
        self.heard.append(("init", given["project"], given["name"], given["config"]["engine"]))

    def log(self, numbers: dict[str, Any]) -> None:
        self.logged.append(numbers)

    def finish(self) -> None:
        self.heard.append(("finish",))


def test_wandb_hears_every_point_of_every_verdict(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the board has, also of points that share a mixture (g1 at 1 is the expert); a second run makes nothing."""
    package = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", package)  # type: ignore[arg-type]
    outcome = lb.run(tiny_suite, tmp_path / "r.db", engine="transformers", log="wandb")
    assert package.heard == [("init", "lerpbench", "tiny-transformers", "transformers"), ("finish",)]
    heard = {(one["point"], name) for one in package.logged for name in one if name.endswith("/sentiment")}
    labels = {f"{row['method']}" for row in outcome.rows}
    assert {name for _, name in heard} == {f"{method}/sentiment" for method in labels}
    told = {one["point"]: value for one in package.logged for k, value in one.items() if k.endswith("/sentiment")}
    rows = [row for row in outcome.rows if row["metric"] == "sentiment" and row["prompts"] is None]
    assert sorted(told.values()) == pytest.approx(sorted(row["value"] for row in rows)) and len(told) == len(rows)
    package.logged.clear()
    lb.run(tiny_suite, tmp_path / "r.db", engine="transformers", log="wandb")
    assert package.logged == []


def test_trackio_keeps_a_run_on_this_machine(tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    from trackio import utils

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))
    for module in [utils, *(m for n, m in list(sys.modules.items()) if n.startswith("trackio."))]:
        if hasattr(module, "TRACKIO_DIR"):
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "kept")
    lb.run(tiny_suite, tmp_path / "r.db", engine="transformers", only=["base"], log="trackio")
    (path,) = (tmp_path / "kept").glob("lerpbench.db")
    with closing(sqlite3.connect(path)) as connection:
        logged = [json.loads(text) for (text,) in connection.execute("SELECT metrics FROM metrics")]
    assert any("base/sentiment" in one and one["point"] == "base" for one in logged)


def test_a_missing_package_is_one_line_before_anything_is_written(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r'--log wandb: the package is missing; pip install "lerpbench\[wandb\]"'):
        lb.run(tiny_suite, tmp_path / "r.db", log="wandb")
    assert not (tmp_path / "r.db").exists()
