"""The overhead tables of the docs follow from a database and stand between the markers of their engine."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from toyboard import make_suite

from bench.schema import OverheadRecord
from bench.store.write import Store
from tools.overhead_table import MAIN, main

DOCUMENT = "before\n<!-- overhead vllm:begin -->\nold\n<!-- overhead vllm:end -->\nafter\n"
QUIET = {"floor": [0.95, 1.0526], "within_floor": False, "busy": False, "load_average": 0.123,
         "others_cores": 0.05}  # fmt: skip


def record(method: str, metric: str, value: float, batch_size: int = 0, ratio: float | None = None, **details: Any) -> (
    OverheadRecord
):  # fmt: skip
    bounds = {} if ratio is None else {"ratio_to_base": ratio, "ratio_low": ratio - 0.01, "ratio_high": ratio + 0.01}
    return OverheadRecord(
        method=method, role="base" if method == "base" else "method", members=1,
        batch_size=batch_size, new_tokens=8 if batch_size else 0,
        metric=metric, value=value, n_rounds=12, details=QUIET | details, **bounds,
    )  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with closing(Store.open(tmp_path / "r.db")) as store:
        suite_id = store.suite(make_suite())
        facts = {"processor": "Test CPU", "cores": 2, "threads": 2, "device": "cpu", "packages": {"torch": "2.12"}}
        environment = store.environment(facts, "digest")
        store.start_run(suite_id, "vllm", environment, "lerpbench overhead toy --db /secret/r.db --engine vllm")
        lines = [
            record("base", MAIN, 0.001, 4, 1.0),
            record("g2", MAIN, 0.001, 4, 1.004, within_floor=True),
            record("dexperts", MAIN, 0.0028, 4, 2.8),
            record("g2", "switch_s", 0.00234),
            record("g2", "amortisation_tokens", 4.6, 4),
        ]
        store.add_overhead(suite_id, "vllm", lines, environment, replace=True)
    return tmp_path / "r.db"


def test_the_table_is_spliced_between_its_engine_s_markers(database: Path, tmp_path: Path) -> None:
    document = tmp_path / "d.md"
    document.write_text(DOCUMENT)
    assert main([str(database), str(document)]) == 0
    once = document.read_text()
    lines = [" ".join(line.split()) for line in once.splitlines()]  # cells are padded
    assert lines[:3] == ["before", "<!-- overhead vllm:begin -->", "| 8 new tokens | batch 4 (12 rounds) |"]
    assert once.endswith("<!-- overhead vllm:end -->\nafter\n") and "old" not in once
    for line in (
        "| g2 | = 1.004 (0.994 to 1.014) |",
        "| dexperts | 2.80 (2.79 to 2.81) |",
        "| noise floor | 0.950 to 1.053 |",
        "| g2 | 2.34 ms | 5 |",
    ):
        assert line in lines
    assert "`lerpbench overhead toy --engine vllm` on Test CPU, 2 cores, torch threads: 2, device: cpu, torch" in once
    assert "Load before: 0.1; cores that other programs took meanwhile: 0.05." in once
    assert main([str(database), str(document)]) == 0
    assert document.read_text() == once


def test_a_document_without_markers_stays_as_it_is(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "d.md"
    document.write_text("no markers")
    assert main([str(database), str(document)]) == 2
    assert "expected the markers <!-- overhead vllm:begin -->" in capsys.readouterr().err
    assert document.read_text() == "no markers"
