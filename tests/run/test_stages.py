"""Whole runs on tiny models: resumption, shared work, honest views."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

import lerpbench as lb
from bench import engines
from bench.engines.transformers import TransformersEngine
from bench.progress import Advance, silent, silently
from bench.run import stages
from bench.run.prepare import Work, status
from bench.run.stages import Run, spread
from bench.run.units import Piece, Serve
from bench.schema import Recipe, UserError
from bench.store.read import Reader
from bench.store.write import Store
from evaluators.judges import Judges
from leaderboard.show.render import render


def varied(suite: Path, folder: Path, change: Callable[[str], str]) -> Path:
    """A copy of a suite in another folder, its files where they were, with a change of its text."""
    copy = folder / "varied.yaml"
    copy.write_text(change(suite.read_text().replace("./", f"{suite.parent}/")))
    return copy


def prepared(suite: Path, only: Sequence[str] = (), limit: int | None = None) -> Work:
    return lb.prepare(suite, "transformers", only, limit)


class CountingEngines:
    """Opens real engines and counts them."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.opened = 0

    def __call__(self) -> Any:
        self.opened += 1
        return engines.engine_class("transformers")(self.work.checkpoints, "float32", "cpu")


def run(work: Work, store: Store, stages: Sequence[Any] = ("generate", "probe", "evaluate")) -> CountingEngines:
    opened = CountingEngines(work)
    Run(work, store, store.environment({}, "d"), silently).execute(opened, Judges("cpu"), stages)
    return opened


def view(path: Path, name: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as connection:
        return sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_suite: Path) -> Path:
    """The database of one uninterrupted run."""
    path = tmp_path_factory.mktemp("finished") / "r.db"
    store = Store.open(path)
    run(prepared(tiny_suite), store)
    store.close()
    return path


def test_every_point_has_completions_and_every_metric(finished: Path, tiny_suite: Path) -> None:
    work = prepared(tiny_suite)
    completions = view(finished, "completions")
    assert len(completions) == len(work.points) * work.completions_per_point == 8 * 15
    metrics = {metric.name for item in work.evaluators for metric in item.evaluator.metrics()}
    results = view(finished, "results")
    for point in work.points:
        assert {row[5] for row in results if row[2] == point.method} == metrics
    assert {row[4] for row in results if row[5] == "sentiment"} == {None, "neutral", "positive"}


def test_equal_mixtures_are_made_once(finished: Path, tiny_suite: Path) -> None:
    """g3(0, 0) is the base and g3(1, 0) is g1(1): eight points, six mixtures."""
    with sqlite3.connect(finished) as connection:
        assert connection.execute("SELECT count(*) FROM points").fetchone() == (8,)
        assert connection.execute("SELECT count(*) FROM generations").fetchone() == (6,)
    found = status(prepared(tiny_suite), Store.open(finished))
    assert (found.generations, found.generations_stored) == (6, 6)
    assert found.evaluations == found.evaluations_stored > 0


def test_a_second_run_opens_no_engine_and_changes_no_result(finished: Path, tiny_suite: Path) -> None:
    before = view(finished, "results")
    assert run(prepared(tiny_suite), Store.open(finished)).opened == 0
    assert view(finished, "results") == before


def test_who_did_what_is_on_record_also_of_a_run_that_was_stopped(
    finished: Path, tiny_suite: Path, tmp_path: Path
) -> None:
    with closing(Reader.open(finished)) as store:
        (suite,) = store.suites()
        run, *_ = store.runs(suite.id, suite.engine)
        (share,) = run.workers
        assert (share.name, share.n_generated, share.n_judged) == ("this process", 6, 6 * 4)
    assert 0 < share.generating_s < share.busy_s < share.present_s

    @contextmanager
    def stopping(title: str, total: int) -> Iterator[Advance]:
        yield silent
        raise KeyboardInterrupt

    work, store = prepared(tiny_suite), Store.open(tmp_path / "r.db")
    run = Run(work, store, store.environment({}, "d"), stopping)
    with pytest.raises(KeyboardInterrupt):
        run.execute(CountingEngines(work), Judges("cpu"))
    (stored,) = store.runs(run.suite_id, work.engine)
    assert stored.finished_at is None and [share.n_generated for share in stored.workers] == [6]


def test_stages_one_by_one_give_what_one_run_gives(finished: Path, tiny_suite: Path, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "r.db")
    run(prepared(tiny_suite), store, ["generate"])
    assert not view(tmp_path / "r.db", "results")
    run(prepared(tiny_suite), store, ["probe", "evaluate"])
    for name in ("results", "completions"):
        assert view(tmp_path / "r.db", name) == view(finished, name)


def test_first_results_are_some_points_with_every_verdict_and_the_end_is_the_same(
    finished: Path, tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of six mixtures ahead, the first and the last: base, and g1(0.5), each with all metrics."""
    monkeypatch.setattr(stages, "AHEAD", 2)
    monkeypatch.setattr(stages, "ENOUGH", 4)
    path = tmp_path / "r.db"
    store = Store.open(path)
    early: list[list[tuple[Any, ...]]] = []
    work = prepared(tiny_suite)
    Run(work, store, store.environment({}, "d"), silently).execute(
        CountingEngines(work), Judges("cpu"), first_results=lambda: early.append(view(path, "results"))
    )
    store.close()
    (rows,) = early
    assert len({row[2:4] for row in rows}) < len({row[2:4] for row in view(finished, "results")})
    metrics = {m.name for item in work.evaluators if item.evaluator.looks_at != "checkpoints"
               for m in item.evaluator.metrics()}  # fmt: skip
    assert {row[5] for row in rows if row[2] == "base"} == metrics
    for name in ("results", "completions"):
        assert view(path, name) == view(finished, name)


def test_first_points_are_spread_over_the_whole_range() -> None:
    units = [Serve(i, Piece()) for i in range(12)]
    assert [unit.position for unit in spread(units, 6)] == [0, 2, 4, 6, 8, 11]


def test_pages_are_written_before_the_end_and_a_damaged_one_stops_nothing(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "AHEAD", 2)
    monkeypatch.setattr(stages, "ENOUGH", 4)
    pages: list[str] = []

    def rendered(databases: Sequence[Path], site: Path, *rest: Any) -> None:
        render(databases, site, *rest)
        pages.append((site / "index.html").read_text())
        if len(pages) == 1:
            raise UserError("no page")

    monkeypatch.setattr("leaderboard.show.render.render", rendered)
    lb.run(tiny_suite, tmp_path / "r.db", site=tmp_path / "site", engine="transformers", task=silently)
    early, late = pages
    assert "without results" in early and "without results" not in late
    lb.run(tiny_suite, tmp_path / "s.db", site=tmp_path / "site", engine="transformers", task=silently, live=False)
    assert len(pages) == 3


@pytest.mark.parametrize(
    ("sweep", "change", "failing"),
    [
        ("g1: {alpha: [0, 1.0e+30, 1]}", "", ["g1(alpha=1e+30)"]),
        ("dexperts: {alpha: [0, 3.0e+38, 1]}", "", ["dexperts(alpha=3e+38)"]),
        ("g1: {alpha: [0]}", "temperature: 1.0e-300, ", ["base", "g1(alpha=0)"]),
    ],
)
def test_a_mixture_that_is_no_model_fails_its_point_and_no_other(
    tiny_suite: Path, tmp_path: Path, sweep: str, change: str, failing: list[str]
) -> None:
    head, _, tail = tiny_suite.read_text().partition("methods:")
    text = f"{head}methods: [base, {{{sweep}}}]\nevaluators:{tail.partition('evaluators:')[2]}"
    text += "  - weight_distance: {pairs: ['expert:base']}\n"
    suite = varied(
        tiny_suite, tmp_path, lambda _: text.replace("./", f"{tiny_suite.parent}/").replace("seed", change + "seed")
    )
    work = prepared(suite)
    store = Store.open(tmp_path / "r.db")
    one_run = Run(work, store, store.environment({}, "d"), silently)
    one_run.execute(CountingEngines(work), Judges("cpu"))
    assert list(one_run.failed) == failing
    rows = {(method, params) for _, _, method, params, *_ in view(tmp_path / "r.db", "completions")}
    assert len(rows) == len(work.points) - len(failing)
    assert all("not finite" in why for why in one_run.failed.values())
    Run(work, store, 1, silently).execute(CountingEngines(work), Judges("cpu"), ["evaluate"])
    render([tmp_path / "r.db"], tmp_path / "site")
    page = (tmp_path / "site" / "index.html").read_text()
    assert all(f"{label} failed: {why}." in page for label, why in one_run.failed.items())


class ListingEngine(TransformersEngine):
    """Remembers what it served."""

    def __init__(self, work: Work) -> None:
        super().__init__(work.checkpoints, "float32", "cpu")
        self.served: list[dict[str, float]] = []

    def serve(self, recipe: Recipe) -> Any:
        self.served.append(recipe.coefficients)
        return super().serve(recipe)


def test_mixtures_beside_the_points_are_asked_once_a_run(tiny_suite: Path, tmp_path: Path) -> None:
    """Three mixtures of two experts: each expert is asked before the first of them, and not again."""
    suite = varied(tiny_suite, tmp_path, lambda text: text.replace("[0, 0.5, 1]", "[0.25, 0.5, 0.75]"))
    work = prepared(suite, only=["g1"])
    engine = ListingEngine(work)
    store = Store.open(tmp_path / "r.db")
    Run(work, store, store.environment({}, "d"), silently).execute(lambda: engine, Judges("cpu"), ["probe"])
    line = [{"antiexpert": 1 - a, "expert": a} for a in (0.25, 0.5, 0.75)]
    assert engine.served == [{"antiexpert": 1.0}, {"expert": 1.0}, *line]
    found = [row[6] for row in view(tmp_path / "r.db", "results") if row[5] == "kl_weights_logits"]
    assert len(found) == 3 and min(found) > 0


def test_only_leaves_the_other_methods_alone(finished: Path, tiny_suite: Path, tmp_path: Path) -> None:
    shutil.copy(finished, tmp_path / "r.db")
    run(prepared(tiny_suite, only=["g1"]), Store.open(tmp_path / "r.db"))
    assert view(tmp_path / "r.db", "results") == view(finished, "results")
    places = [list(sqlite3.connect(db).execute("SELECT method, params, position FROM points ORDER BY position"))
              for db in (tmp_path / "r.db", finished)]  # fmt: skip
    assert places[0] == places[1]


def test_limited_prompts_are_another_suite(finished: Path, tiny_suite: Path, tmp_path: Path) -> None:
    shutil.copy(finished, tmp_path / "r.db")
    run(prepared(tiny_suite, only=["base"], limit=1), Store.open(tmp_path / "r.db"))
    results = view(tmp_path / "r.db", "results")
    assert {row[0] for row in results} == {"tiny", "tiny-1prompts"}
    assert [row for row in results if row[0] == "tiny"] == view(finished, "results")


def test_a_new_evaluator_judges_stored_completions_without_an_engine(
    finished: Path, tiny_suite: Path, tmp_path: Path
) -> None:
    shutil.copy(finished, tmp_path / "r.db")
    wider = varied(tiny_suite, tmp_path, lambda text: text + "  - distinct: {suffix: _again}\n")
    assert run(prepared(wider), Store.open(tmp_path / "r.db")).opened == 0
    names = {row[5] for row in view(tmp_path / "r.db", "results")}
    assert any(name.endswith("_again") for name in names)


def test_a_verdict_on_checkpoints_stands_at_the_suites_first_point_alone(
    finished: Path, tiny_suite: Path, tmp_path: Path
) -> None:
    """A run without that point leaves the verdict to one that has it."""
    shutil.copy(finished, tmp_path / "r.db")
    wider = varied(tiny_suite, tmp_path, lambda text: text + '  - weight_distance: {pairs: ["expert:base"]}\n')
    for only, methods_ in ((["g1"], set()), (["base"], {"base"}), (["g1"], {"base"}), ([], {"base"})):
        run(prepared(wider, only=only), Store.open(tmp_path / "r.db"))
        found = [row for row in view(tmp_path / "r.db", "results") if row[5] == "weight_distance[expert:base]"]
        assert {row[2] for row in found} == methods_
    found = status(prepared(wider), Store.open(tmp_path / "r.db"))
    assert (found.generations, found.evaluations) == (found.generations_stored, found.evaluations_stored)


def test_two_evaluators_may_not_report_one_metric(tiny_suite: Path, tmp_path: Path) -> None:
    twice = varied(tiny_suite, tmp_path, lambda text: text + "  - distinct\n")
    with pytest.raises(UserError, match="both report 'distinct_1'; give one of them a suffix"):
        prepared(twice)


def test_checkpoints_that_an_evaluator_misses_are_named_before_the_run(tiny_suite: Path, tmp_path: Path) -> None:
    suite = varied(tiny_suite, tmp_path, lambda text: text + '  - weight_distance: {pairs: ["expert:joy"]}\n')
    with pytest.raises(UserError, match=r"expected two of the checkpoints .* as a:b, got 'expert:joy'"):
        prepared(suite)


def test_a_mixture_of_nothing_is_named(tiny_suite: Path, tmp_path: Path) -> None:
    nothing = "methods:\n  - mixture: {base: [0, 1], expert: [0, 1]}"
    suite = varied(tiny_suite, tmp_path, lambda text: text.replace("methods:", nothing, 1))
    with pytest.raises(UserError, match="coefficient that is not zero"):
        prepared(suite)


def test_a_prompt_without_room_is_refused_before_the_run(tiny_suite: Path, tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text('{"text": "' + "The movie was good. " * 30 + '"}\n')
    neutral, new = str(tiny_suite.parent / "neutral.jsonl"), str(tmp_path / "long.jsonl")
    long = varied(tiny_suite, tmp_path, lambda text: text.replace(neutral, new))
    with pytest.raises(UserError, match=r"row 0 has \d+ tokens; .* exceeds the model's context of 64"):
        prepared(long)


@pytest.mark.parametrize("table", ["generations", "evaluations"])
def test_a_killed_run_resumes_to_the_same_views(finished: Path, tiny_suite: Path, tmp_path: Path, table: str) -> None:
    """kill -9 as soon as the table has two rows, and the same command again."""
    db = tmp_path / "r.db"
    command = [
        sys.executable,
        "-m",
        "bench.cli",
        "run",
        str(tiny_suite),
        "--db",
        str(db),
        "--site",
        str(tmp_path / "s"),
    ]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while killed.poll() is None and count(db, table) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    for name in ("results", "completions"):
        assert view(db, name) == view(finished, name)


def count(db: Path, table: str) -> int:
    if not db.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet, or being written
        return 0


class SweepingEngine(TransformersEngine):
    """Keeps how many mixtures each call of `sweep` took."""

    swept: ClassVar[list[int]] = []

    def sweep(self, recipes: Any, *rest: Any) -> Any:
        self.swept.append(len(recipes))
        return super().sweep(recipes, *rest)


def test_a_sweep_in_one_batch_changes_no_row(tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = varied(
        tiny_suite, tmp_path, lambda text: text.replace("dexperts: {alpha: [0, 1]}", "dexperts: {alpha: [0.5, 1, 2]}")
    )
    work = prepared(more)
    views = {}
    for name, batch_rows, expected in (("together", 640, [3]), ("alone", 1, [])):
        monkeypatch.setattr(SweepingEngine, "swept", [])
        factory = partial(SweepingEngine, work.checkpoints, "float32", "cpu", batch_rows=batch_rows)
        with closing(Store.open(tmp_path / name)) as store:
            Run(work, store, store.environment({}, "d"), silently).execute(factory, Judges("cpu"))
        assert SweepingEngine.swept == expected
        views[name] = [view(tmp_path / name, rows) for rows in ("results", "completions")]
    assert views["together"] == views["alone"]
