"""What befalls a file ends in one line, loses nothing that was stored, and never shows as other numbers."""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.schema import Completion, Estimate, Metric, Point, Prompt, PromptSource, Recipe, Suite, UserError
from bench.stats import ScoreColumn, ratio_statistic
from bench.store import opening, read
from bench.store.checksums import PARTS
from bench.store.extract import copy_suite
from bench.store.read import Reader
from bench.store.write import Store

SUITE = Suite(name="s", checkpoints={"base": "x"}, prompts={"n": PromptSource(source="x")}, methods=())
PROMPTS = [Prompt(set="n", row=row, text=f"prompt {row}") for row in range(12)]
VIEWS = ("results", "completions", "overhead", "scores", "finetuning")


def add(store: Store, name: str, position: int) -> None:
    """A point with its completions, verdict and sums."""
    suite_id = store.suite(SUITE)
    environment = store.environment({"cores": 2}, "digest")
    recipe = Recipe(space="weights", coefficients={"base": 1 + position})
    mixture = store.mixture(f"m{name}", "transformers", "float32", recipe, {"base": "b"})
    point = store.place(suite_id, "transformers", position, Point(method=name, params={}, recipe=recipe), mixture)
    completions = [Completion(p, s, f" text {name} {p} {s}", 2, "length") for p in range(12) for s in range(2)]
    generation = store.add_generation(f"g{name}", mixture, {"samples": 2}, PROMPTS, completions, 1.5, environment)
    values = np.arange(24) / 7 + position
    evaluation = store.add_evaluation(
        f"e{name}", "length", 1, {}, mixture, generation, 0.1, environment,
        metrics=[Metric(name="length", unit="tokens")],
        scores={"length": ScoreColumn(values.tolist())},
        statistics=[ratio_statistic("length", np.repeat(np.arange(12), 2), values, 12)],
        items=PROMPTS,
        estimates=[Estimate(metric="length", prompts=None, value=float(values.mean()), n_scored=24, n_total=24)],
    )  # fmt: skip
    store.link(point, generation, [evaluation])


def add_many(store: Store) -> None:
    for i in range(100):
        add(store, f"more{i}", 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(Store.open(tmp_path / "r.db")) as store:
        for position, name in enumerate(("base", "g1", "g2")):
            add(store, name, position)
    return tmp_path / "r.db"


def shown(path: Path) -> dict[str, Any]:
    """Everything that a reader of this file can be shown."""
    with closing(Reader.open(path)) as reader:
        found: dict[str, Any] = {view: list(reader.view_rows(view)) for view in VIEWS}
        for suite in reader.suites():
            found[suite.engine] = reader.points(suite.id, suite.engine), list(reader.results(suite.id, suite.engine))
            found["sums"] = reader.sums(suite.id, suite.engine, "length").tolist()
        return found


def test_flipped_bytes_never_show_as_other_numbers(path: Path, tmp_path: Path) -> None:
    whole, right = path.read_bytes(), shown(path)
    generator = random.Random(0)
    damaged = tmp_path / "damaged.db"
    used = [place for place, byte in enumerate(whole) if byte]
    told = []
    for _ in range(100):
        data = bytearray(whole)
        data[generator.choice(used)] ^= 1 << generator.randrange(8)
        damaged.write_bytes(data)
        try:
            assert shown(damaged) == right  # where nothing depends on it
        except UserError as error:
            told.append(str(error))
    assert len(told) > 50 and all(len(line.splitlines()) == 1 for line in told)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE estimates SET value = value + 1e-12 WHERE id = 2",
        "DELETE FROM estimates WHERE id = 2",
        "INSERT INTO estimates SELECT 9, evaluation_id, metric_id, 'n', value, low, high, 1, 1, reason, transform "
        "FROM estimates WHERE id = 2",
        "UPDATE statistics SET numerator = 0 WHERE evaluation_id = 2 AND input_id = 3",
        "UPDATE completion_texts SET text = 'x' WHERE generation_id = 2 AND input_id = 3 AND sample = 1",
        "UPDATE prompt_scores SET by_sample = '[1,2]' WHERE evaluation_id = 2 AND input_id = 3",
        "DELETE FROM point_evaluations WHERE point_id = 2",
        "DELETE FROM points WHERE id = 2",
        "UPDATE metrics SET direction = 'higher'",
        "UPDATE inputs SET text = 'x' WHERE id = 3",
        "UPDATE mixtures SET survived_update = 0.5 WHERE id = 2",
        "UPDATE environments SET details = '{}'",
        "DELETE FROM checksums WHERE part = 'estimates' AND owner = '2'",
    ],
)
def test_the_doctor_says_what_is_lost_and_what_is_not(path: Path, change: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(change).rowcount == 1
    part = next(word for word in change.replace("'", " ").split() if word in PARTS)
    told = CliRunner().invoke(app, ["doctor", "--db", str(path)])
    assert told.exit_code == 1
    damaged, whole = (
        [line for line in told.stdout.splitlines() if line.startswith(start)] for start in ("DAMAGED", "whole")
    )
    assert len(damaged) == len(whole) == 1 and part in damaged[0] and f"{part} (" not in whole[0]
    with pytest.raises(UserError, match=f"damaged: {part}: 1 of"):
        Reader.open(path)


def test_a_whole_database_is_called_whole(path: Path) -> None:
    told = CliRunner().invoke(app, ["doctor", "--db", str(path)])
    assert told.exit_code == 0 and "every row is as it was stored" in told.stdout


@pytest.mark.parametrize(
    ("pragma", "message"), [("max_page_count = 1", "no room"), ("query_only = ON", "not writable")]
)
def test_what_cannot_be_written_loses_nothing(path: Path, pragma: str, message: str) -> None:
    right = shown(path)
    with closing(Store.open(path)) as store:
        store.db.execute(f"PRAGMA {pragma}")
        with pytest.raises(UserError, match=message):
            add_many(store)
        store.db.execute("PRAGMA query_only = OFF")
        store.db.execute("PRAGMA max_page_count = 1000000")
        store.keep_points(1, "transformers", [1, 2, 3])
    found = shown(path)
    assert [found[view] for view in ("results", "completions")] == [right[view] for view in ("results", "completions")]


def test_a_busy_file_is_waited_for_then_told_in_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opening, "TRY_S", 0.05)
    monkeypatch.setattr(opening, "TRIES", 3)
    with closing(Store.open(path)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="busy: another process"):
            store.suite(SUITE)
        assert capsys.readouterr().err.count("another process is using it") == 1
        other.execute("ROLLBACK")
        store.suite(SUITE)


CREATE = """
import sys
from bench.schema import PromptSource, Suite
from bench.store.write import Store
name = sys.argv[2]
sys.stdin.readline()
store = Store.open(sys.argv[1])
store.suite(Suite(name=name, checkpoints={"base": "x"}, prompts={"n": PromptSource(source="x")}, methods=()))
"""


def together(path: Path, n: int) -> None:
    """Several processes create one database at the same moment, and each stores something."""
    pipe = subprocess.PIPE
    found = [
        subprocess.Popen([sys.executable, "-c", CREATE, str(path), f"s{i}"], stdin=pipe, stderr=pipe, text=True)
        for i in range(n)
    ]
    for one in found:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    for one in found:
        _, errors = one.communicate(timeout=60)
        assert one.returncode == 0, errors
    with closing(Reader.open(path)) as reader:
        assert list(reader.suite_definitions()) == [f"s{i}" for i in range(n)]


def test_two_processes_create_one_database(tmp_path: Path) -> None:
    for trial in range(2):
        together(tmp_path / f"{trial}.db", 2)


def test_an_error_of_ours_keeps_its_traceback(path: Path) -> None:
    broken: Callable[[], Any]
    with closing(Store.open(path)) as store:
        for broken in (lambda: store.link(1, 99, []), lambda: store.view_columns("absent")):
            with pytest.raises(sqlite3.Error):
                broken()


def test_a_bundle_does_not_seal_damage_that_opening_a_large_file_leaves(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "AFFORDABLE", 0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE completion_texts SET text = 'other' WHERE generation_id = 1 AND input_id = 1")
        connection.commit()
    with closing(Reader.open(path)) as home, pytest.raises(UserError, match=r"damaged: completion_texts; .*doctor"):
        copy_suite(home, "s", tmp_path / "copy.db")
