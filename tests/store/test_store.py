"""The store: what it keeps, what it refuses, and its three public views."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.schema import Completion, Estimate, Metric, Point, Prompt, PromptSource, Recipe, Suite, UserError
from bench.stats import RatioStatistic, ScoreColumn
from bench.store.read import Reader
from bench.store.schema import APPLICATION_ID, FORMAT
from bench.store.write import Store

RECIPE = Recipe(space="weights", coefficients={"base": 1})
SUITE = Suite(name="s", checkpoints={"base": "x"}, prompts={"n": PromptSource(source="x")}, methods=())
PROMPTS = [Prompt(set="n", row=0, text="same"), Prompt(set="n", row=1, text="same")]
COMPLETIONS = [Completion(p, s, f" text {p}{s}", 2, "length") for p in range(2) for s in range(2)]


STATISTIC = RatioStatistic("length", np.array([3.0, 3.0]), np.array([2.0, 1.0]), np.array([2, 1]), np.array([2, 2]))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "r.db")


def fill(store: Store, generation: str = "g", evaluation: str = "e") -> tuple[int, int]:
    """One point with its completions and one evaluation.  Returns (point id, generation id)."""
    environment = store.environment({"cores": 2}, "digest")
    suite_id = store.suite(SUITE)
    mixture = store.mixture("m", "transformers", "float32", RECIPE, {"base": "b"})
    point = store.place(suite_id, "transformers", 0, Point(method="base", params={}, recipe=RECIPE), mixture)
    generation_id = store.add_generation(generation, mixture, {"samples": 2}, PROMPTS, COMPLETIONS, 1.5, environment)
    evaluation_id = store.add_evaluation(
        evaluation, "length", 1, {}, mixture, generation_id, 0.1, environment,
        metrics=[Metric(name="length", unit="tokens")],
        scores={"length": ScoreColumn([1.0, 2.0, 3.0, None], {3: "empty"})},
        statistics=[STATISTIC],
        items=PROMPTS,
        estimates=[Estimate(metric="length", prompts=None, value=2.0, low=1.0, high=3.0, n_scored=3, n_total=4)],
    )  # fmt: skip
    store.link(point, generation_id, [evaluation_id])
    return point, generation_id


def rows(store: Store, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in store.db.execute(sql)]


def test_the_views_have_their_public_columns(store: Store) -> None:
    def columns(view: str) -> list[str]:
        return [column[0] for column in store.db.execute(f"SELECT * FROM {view}").description]

    assert columns("results") == [
        "suite", "engine", "method", "params", "prompts", "metric", "value", "low", "high", "n_scored", "n_total",
    ]  # fmt: skip
    assert columns("completions") == [
        "suite", "engine", "method", "params", "prompts", "row", "sample", "prompt", "text", "n_tokens",
        "finish_reason",
    ]  # fmt: skip
    assert columns("overhead") == [
        "suite", "engine", "method", "batch_size", "new_tokens", "metric", "value", "low", "high", "n_rounds",
        "ratio_to_base", "ratio_low", "ratio_high",
    ]  # fmt: skip


def test_what_goes_in_comes_out(store: Store) -> None:
    _, generation_id = fill(store)
    assert store.generated(generation_id) == (PROMPTS, COMPLETIONS)
    assert rows(store, "SELECT * FROM results") == [
        ("s", "transformers", "base", "{}", None, "length", 2.0, 1.0, 3.0, 3, 4)
    ]
    assert rows(store, "SELECT row, sample, text FROM completions WHERE row = 1") == [
        (1, 0, " text 10"),
        (1, 1, " text 11"),
    ]
    assert rows(store, "SELECT value, reason FROM scores ORDER BY input_id, sample")[2:] == [
        (3.0, None),
        (None, "empty"),
    ]


def test_prompts_are_kept_by_row_not_by_text(store: Store) -> None:
    fill(store)
    assert rows(store, "SELECT DISTINCT row FROM completions ORDER BY row") == [(0,), (1,)]


def test_stored_work_is_found_by_its_key_again(tmp_path: Path) -> None:
    first = Store.open(tmp_path / "r.db")
    _, generation_id = fill(first)
    first.close()
    again = Store.open(tmp_path / "r.db")
    assert again.generation_id("g") == generation_id
    assert again.evaluation_id("e") is not None
    assert again.generation_id("absent") is None


def test_a_point_that_leaves_the_suite_leaves_the_views_but_not_the_store(store: Store) -> None:
    fill(store)
    store.keep_points(store.suite(SUITE), "transformers", [])
    assert rows(store, "SELECT * FROM results") == []
    assert rows(store, "SELECT count(*) FROM completion_texts") == [(4,)]


def test_a_point_that_stands_for_another_mixture_loses_its_old_results(store: Store) -> None:
    fill(store)
    other = store.mixture("m2", "transformers", "float32", RECIPE, {"base": "other bytes"})
    store.place(store.suite(SUITE), "transformers", 0, Point(method="base", params={}, recipe=RECIPE), other)
    assert rows(store, "SELECT * FROM results") == []
    assert rows(store, "SELECT * FROM completions") == []


def test_what_another_process_stored_meanwhile_is_kept(store: Store) -> None:
    _, generation_id = fill(store)
    mixture = store.mixture("m", "transformers", "float32", RECIPE, {})
    again = store.add_generation("g", mixture, {}, PROMPTS, COMPLETIONS, 1.0, store.environment({}, "d"))
    assert again == generation_id
    assert rows(store, "SELECT count(*) FROM completion_texts") == [(len(COMPLETIONS),)]


def test_a_failed_write_leaves_nothing_behind(store: Store) -> None:
    environment = store.environment({}, "d")
    mixture = store.mixture("m", "transformers", "float32", RECIPE, {})
    broken = [*COMPLETIONS, Completion(0, 9, None, 1, "stop")]  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        store.add_generation("g", mixture, {}, PROMPTS, broken, 1.0, environment)
    assert store.generation_id("g") is None
    assert rows(store, "SELECT count(*) FROM completion_texts") == [(0,)]


def test_foreign_databases_are_refused_untouched(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE t (x)")
    before = foreign.read_bytes()
    with pytest.raises(UserError, match="not a lerpbench database"):
        Store.open(foreign)
    assert foreign.read_bytes() == before


def test_a_database_of_another_format_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    before = path.read_bytes()
    for opened in (Store.open, Reader.open):
        with pytest.raises(
            UserError, match=f"another version of lerpbench \\(format {FORMAT + 1}, this one has {FORMAT}"
        ):
            opened(path)
    assert path.read_bytes() == before


def test_files_that_cannot_be_a_database(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but a text that is long enough to look like one" * 20)
    with pytest.raises(UserError, match="cannot be used as a lerpbench database"):
        Store.open(text)
    with pytest.raises(UserError, match="got a folder"):
        Store.open(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        Store.open(tmp_path / "absent" / "r.db")
    with pytest.raises(UserError, match="no such database"):
        Reader.open(tmp_path / "absent.db")


def test_scores_keep_nine_digits_and_their_sample(store: Store) -> None:
    """float32's nearest to 0.1 is 0.100000001490116...; nine digits name it, and no other float32."""
    single = float(np.float32(0.1))
    fill(store)
    mixture = store.mixture("m", "transformers", "float32", RECIPE, {"base": "b"})
    generation = store.generation_id("g")
    column = ScoreColumn([single, 123456789.0, None, -1e-30], {2: 'no "word"'})
    store.add_evaluation(
        "x", "x", 1, {}, mixture, generation, 0.1, store.environment({}, "d"), metrics=[Metric(name="x")],
        scores={"x": column}, statistics=[], items=PROMPTS, estimates=[],
    )  # fmt: skip
    found = rows(store, "SELECT row, sample, value, reason FROM scores JOIN inputs ON inputs.id = input_id "
                        "JOIN metrics ON metrics.id = metric_id WHERE metrics.name = 'x' ORDER BY 1, 2")  # fmt: skip
    assert found == [
        (0, 0, 0.100000001, None), (0, 1, 123456789.0, None), (1, 0, None, 'no "word"'), (1, 1, -1e-30, None),
    ]  # fmt: skip
    assert np.float32(found[0][2]) == np.float32(0.1)


def test_as_many_scores_as_completions_or_none_is_stored(store: Store) -> None:
    fill(store)
    mixture = store.mixture("m", "transformers", "float32", RECIPE, {"base": "b"})
    with pytest.raises(ValueError, match="3 scores for 4 completions"):
        store.add_evaluation(
            "x", "x", 1, {}, mixture, store.generation_id("g"), 0.1, store.environment({}, "d"),
            metrics=[Metric(name="x")], scores={"x": ScoreColumn([1.0] * 3)}, statistics=[], items=PROMPTS,
            estimates=[],
        )  # fmt: skip
    assert store.evaluation_id("x") is None


def test_completions_come_in_the_order_of_sets_and_rows_whatever_was_stored_first(store: Store) -> None:
    """A run over the first row of each set stores those rows first; the whole sets keep their order all the same."""
    both = [Prompt(set=name, row=row, text="x") for name in ("n", "p") for row in range(2)]
    environment = store.environment({}, "d")
    mixture = store.mixture("m", "transformers", "float32", RECIPE, {})
    store.inputs([both[0], both[2]])
    completions = [Completion(i, s, f"{i}{s}", 1, "stop") for i in range(4) for s in range(2)]
    generation = store.add_generation("g", mixture, {}, both, completions, 1.0, environment)
    assert store.generated(generation) == (both, completions)


def test_reading_leaves_file_and_folder_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    Store.open(path).close()
    before = path.read_bytes()
    reader = Reader.open(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.db.execute("DELETE FROM suites")
    reader.close()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["r.db"]


def test_a_killed_writers_half_transaction_does_not_hinder_reading(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    fill(Store.open(path))
    writer = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA cache_size = 1'); "
        "c.execute('UPDATE inputs SET text = hex(randomblob(90000))'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", writer, str(path)], check=False)
    assert path.with_name("r.db-journal").exists()
    assert rows(Reader.open(path), "SELECT DISTINCT text FROM inputs") == [("same",)]


def test_our_files_say_so_in_their_header(tmp_path: Path) -> None:
    Store.open(tmp_path / "r.db").close()
    assert (tmp_path / "r.db").read_bytes()[68:72] == APPLICATION_ID.to_bytes(4, "big")


def test_a_prompt_set_without_a_name_cannot_be_stored(store: Store) -> None:
    """On the board an empty name stands for all prompts."""
    fill(store)
    for sql in ("UPDATE estimates SET prompts = ''", "UPDATE inputs SET set_name = ''"):
        with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint failed"):
            store.db.execute(sql)
