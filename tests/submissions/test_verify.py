"""A bundle holds one suite and verifies; one that was changed does not, and the row that does not match is named."""

import hashlib
import sqlite3
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import evaluators
import methods
from bench import engines
from bench.cli import app
from bench.progress import silently
from bench.run.prepare import prepare
from bench.run.stages import Run
from bench.schema import OverheadRecord, UserError
from bench.store.read import Reader
from bench.store.schema import FORMAT
from bench.store.write import Store
from bench.submissions.bundle import DATABASE, facts, pack, record, submit, unpack
from bench.submissions.findings import Report
from bench.submissions.verify import verify
from bench.suite.load import load_suite
from evaluators.judges import Judges

PROMPTS = 5  # of the tiny suite: a sample of as many is everything


def run(suite: Path, database: Path, limit: int | None = None, only: Sequence[str] = ()) -> None:
    registries = methods.registry(), evaluators.registry()
    work = prepare(load_suite(str(suite), *registries), *registries, "transformers", 1, only, limit)
    with closing(Store.open(database)) as store:
        details = {"commit": "abc", "cores": 2}
        digest = hashlib.sha256(b'{"commit":"abc","cores":2}').hexdigest()
        one_run = Run(work, store, store.environment(details, digest), silently)
        engine = engines.engine_class("transformers")
        one_run.execute(lambda: engine(work.checkpoints, "float32", "cpu"), Judges("cpu"))
        line = OverheadRecord(method="g1", role="method", members=1, batch_size=1, new_tokens=8, metric="switch_s",
                              value=0.5, low=0.4, high=0.6, n_rounds=10, ratio_to_base=1.0, ratio_low=0.9,
                              ratio_high=1.1)  # fmt: skip
        store.add_overhead(one_run.suite_id, "transformers", [line], 1, replace=True)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, tiny_suite: Path) -> Path:
    """Two suites: the tiny one with every cheap evaluator, and its first prompts as another."""
    folder = tmp_path_factory.mktemp("submission")
    suite = folder / "tiny.yaml"
    text = tiny_suite.read_text().replace("./", f"{tiny_suite.parent}/")
    suite.write_text(text + "  - repetition: {n: 2}\n  - length\n  - weight_distance: {pairs: ['expert:base']}\n")
    run(suite, folder / "r.db")
    run(suite, folder / "r.db", limit=1, only=["base"])
    return folder / "r.db"


@pytest.fixture(scope="module")
def bundle(database: Path) -> Path:
    path = database.with_name("tiny.lerpbench.zip")
    submit(database, "tiny", path)
    return path


def check(path: Path, sample: int = 2) -> Report:
    return verify(path, sample, 0, "cpu", silently)


Tamper = Callable[..., Report]


@pytest.fixture
def tamper(bundle: Path, tmp_path: Path) -> Tamper:
    """tamper(sql, ...) -> the report on a bundle changed so; a careful forger writes the manifest anew."""

    def change(*statements: str, sample: int = 2, careful: bool = True) -> Report:
        path, manifest = unpack(bundle, tmp_path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            for statement in statements:
                assert connection.execute(statement).rowcount != 0, statement
            connection.commit()
        if careful:
            with closing(Store.open(path, checked=False)) as store:
                store.seal()
                manifest = facts(store).model_copy(update={"files": {DATABASE: record(path)}})
        pack(path, manifest, tmp_path / "changed.zip")
        return check(tmp_path / "changed.zip", sample)

    return change


def named(report: Report, *parts: str) -> bool:
    """Whether a row with these words is among those that do not match."""
    return any(all(part in str(mismatch) for part in parts) for mismatch in report.mismatches)


def of(evaluator: str) -> str:
    return f"evaluation_id = (SELECT min(id) FROM evaluations WHERE evaluator = '{evaluator}')"


# ------------------------------------------------------------------------------------------------------ as it is


def test_a_bundle_holds_one_suite_and_verifies(database: Path, bundle: Path, tmp_path: Path) -> None:
    report = check(bundle)
    assert report.verified, [str(m) for m in report.mismatches]
    checked = {name for name, _ in report.checked}
    assert {"schema", "points", "mixtures", "completions", "sentiment", "distinct", "nll", "overhead"} <= checked
    asked = {"nll", "next_token", "linearity", "weight_distance"}
    assert {name for name, _ in report.skipped} == {"overhead", "completions", "provenance"} | asked
    path, manifest = unpack(bundle, tmp_path)
    with closing(sqlite3.connect(path)) as small, closing(sqlite3.connect(database)) as large:
        for view in ("results", "completions", "overhead"):
            rows = [sorted(db.execute(f"SELECT * FROM {view} WHERE suite = 'tiny'"), key=repr) for db in (small, large)]
            assert rows[0] == rows[1] and rows[0], view
            assert small.execute(f"SELECT DISTINCT suite FROM {view}").fetchall() == [("tiny",)]
        assert small.execute("SELECT count(*) FROM generations").fetchone() == (6,)
    assert manifest.counts["points"] == 8 and manifest.commits == ("abc",)
    assert set(manifest.checkpoints) == {"base", "expert", "antiexpert"}


def test_equal_databases_make_equal_bytes(database: Path, bundle: Path, tmp_path: Path) -> None:
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    submit(database, "tiny", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before


def test_a_suite_has_to_be_named_known_and_finished(database: Path, tiny_suite: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="several suites; say which with --suite; it has tiny, tiny-1prompts"):
        submit(database, None, tmp_path / "b.zip")
    with pytest.raises(UserError, match="no suite 'tyni'"):
        submit(database, "tyni", tmp_path / "b.zip")
    run(tiny_suite, tmp_path / "part.db", only=["base"])
    with pytest.raises(
        UserError, match=r'suite tiny is not finished: g1 \{"alpha":0.0\} was not run on transformers \(and'
    ):
        submit(tmp_path / "part.db", None, tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


def test_a_judge_that_is_not_here_is_said(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(source: str) -> None:
        raise UserError(f"checkpoint {source}: not here")

    monkeypatch.setattr("evaluators.base.resolve", absent)
    report = check(bundle)
    assert report.verified
    assert "not here: its scores are taken as stored" in dict(report.skipped)["acceptability"]


# ------------------------------------------------------------------------------------------------------ changed


SCORES = "UPDATE prompt_scores SET by_sample"
SCORE = f"{SCORES} = json_set(by_sample, '$[1]', 0.75) WHERE input_id = 1 AND {of('sentiment')}"
TEXT = (
    "UPDATE completion_texts SET text = text || ' so so great' WHERE generation_id = 1 AND input_id = 1 AND sample = 1"
)


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        (TEXT, ("statistics", 'evaluator "distinct"', 'prompts "neutral", row 0', "numerator")),
        (SCORE, ("statistics", 'evaluator "sentiment"', 'prompts "neutral", row 0', "numerator")),
        (f"UPDATE statistics SET numerator = 1.5 WHERE input_id = 2 AND {of('acceptability')}",
         ("statistics", 'evaluator "acceptability"', 'prompts "neutral", row 1', "stored 1.5")),
        (f"UPDATE estimates SET value = 0.9 WHERE prompts IS NULL AND {of('sentiment')}",
         ("estimates", 'evaluator "sentiment"', 'prompts "all"', "value: stored 0.9")),
        (f"UPDATE estimates SET low = low - 0.001 WHERE prompts = 'positive' AND {of('perplexity')}",
         ("estimates", 'evaluator "perplexity"', 'prompts "positive"', "low: stored")),
        (f"UPDATE estimates SET value = value / 2 WHERE {of('nll')}", ("estimates", 'metric "nll_positive"', "value")),
        (f"UPDATE estimates SET transform = 'exp' WHERE {of('sentiment')}", ("estimates", "transform: stored", "exp")),
        ("UPDATE generations SET n_tokens = n_tokens + 1 WHERE id = 1", ("generations", "n_tokens")),
        ("UPDATE inputs SET text = 'The film' WHERE id = 1", ("generations", "key: stored")),
        ("UPDATE evaluations SET options = replace(options, 'full', 'completion') WHERE evaluator = 'sentiment'",
         ("evaluations", 'evaluator "sentiment"', "options")),
        ("UPDATE evaluations SET key = replace(key, '0', '1') WHERE evaluator = 'distinct'",
         ("evaluations", 'evaluator "distinct"', "key")),
        ("UPDATE points SET mixture_id = (SELECT mixture_id FROM points WHERE method = 'base') WHERE method = 'g1' "
         "AND params = '{\"alpha\":0.5}'", ("points", "g1", "0.5", "recipe: stored")),
        ("UPDATE mixtures SET checkpoints = replace(checkpoints, '0', '1') WHERE id = 1", ("mixtures", "key")),
        ("UPDATE environments SET details = '{\"commit\":\"def\",\"cores\":2}'", ("environments", "digest")),
        ("UPDATE suites SET definition = replace(definition, '\"samples\":3', '\"samples\":4')",
         ("points", "sampling")),
        ("UPDATE evaluations SET version = 99 WHERE evaluator = 'distinct'",
         ("evaluations", 'evaluator "distinct"', "version: stored 99")),
        ("INSERT INTO estimates (evaluation_id, metric_id, value, low, high, n_scored, n_total) SELECT min(id), "
         "(SELECT id FROM metrics WHERE name = 'sentiment'), 0.999, 0.99, 1, 3, 3 FROM evaluations WHERE "
         "evaluator = 'nll'", ("estimates", 'metric "sentiment"', 'prompts "all"', "rows: stored 2, expected 1")),
        ("UPDATE weight_distances SET distance = 2 * distance",
         ("estimates", 'metric "weight_distance[expert:base]"', "value")),
        ("UPDATE suites SET name = 'paper'", ("suites", "name", 'stored "paper", expected "tiny"')),
        ("UPDATE metrics SET direction = 'lower' WHERE name = 'sentiment'", ("metrics", "sentiment", "direction")),
        ("UPDATE metrics SET unit = 'points' WHERE name = 'sentiment'", ("metrics", "sentiment", "unit")),
        (f"UPDATE estimates SET reason = 'why' WHERE {of('sentiment')}", ("estimates", "reason")),
        ("UPDATE suites SET definition = json_set(definition, '$.checkpoints.base', 'mini:base')",
         ("suites", 'checkpoint "base"', "digest")),
        ("INSERT INTO metrics VALUES (999, 'better', 'higher', '', '')", ("metrics (id 999)", "references")),
        ("INSERT INTO inputs VALUES (999, 'n', 0, 'x')", ("inputs (id 999)", "references")),
        ("UPDATE overhead_records SET value = 0.3", ("overhead_records", "switch_s", "stored 0.3")),
    ],
)  # fmt: skip
def test_a_changed_value_is_found(tamper: Tamper, sql: str, row: tuple[str, ...]) -> None:
    report = tamper(sql)
    assert named(report, *row), [str(m) for m in report.mismatches]


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("DELETE FROM completion_texts WHERE generation_id = 1 AND input_id = 1 AND sample = 2",
         ("completions", 'prompts "neutral", row 0', 'samples: stored [0, 1], expected "0 to 2"')),
        ("DELETE FROM completion_texts WHERE generation_id = 1 AND input_id = 1",
         ("generations", "n_prompts: stored 5")),
        (f"{SCORES} = json_remove(by_sample, '$[2]') WHERE input_id = 1 AND {of('sentiment')}",
         ("scores", 'evaluator "sentiment"', "row 0, sample 2", "no such row")),
        (f"DELETE FROM statistics WHERE input_id = 1 AND {of('sentiment')}", ("statistics", "row 0", "no such row")),
        (f"DELETE FROM estimates WHERE prompts IS NULL AND {of('distinct')}",
         ("estimates", 'prompts "all"', "no such row")),
        ("DELETE FROM point_evaluations WHERE point_id = 1 AND evaluation_id IN (SELECT id FROM evaluations WHERE "
         "evaluator = 'sentiment')", ("points", "sentiment did not judge base")),
        ("DELETE FROM points WHERE method = 'dexperts' AND params = '{\"alpha\":1.0}'",
         ("points", "dexperts", "was not run")),
    ],
)  # fmt: skip
def test_a_deleted_row_is_found(tamper: Tamper, sql: str, row: tuple[str, ...]) -> None:
    report = tamper(sql)
    assert named(report, *row), [str(m) for m in report.mismatches]


def test_a_careless_forger_is_told_by_the_checksum_and_by_the_row(tamper: Tamper) -> None:
    report = tamper(TEXT, SCORE, careful=False)
    assert named(report, "files", "results.db", "sha256")
    assert named(report, "statistics", 'evaluator "distinct"', 'prompts "neutral", row 0')
    assert named(report, "statistics", 'evaluator "sentiment"', 'prompts "neutral", row 0')


def test_scores_that_were_changed_consistently_are_found_by_judging_again(tamper: Tamper, tmp_path: Path) -> None:
    """0.75 instead of the judge's score, with its sum corrected: only the judge can tell, if it reads that prompt."""
    sums = (
        "UPDATE statistics SET numerator = (SELECT sum(value) FROM scores AS s WHERE s.input_id = statistics.input_id "
        "AND s.evaluation_id = statistics.evaluation_id AND s.metric_id = statistics.metric_id) "
        f"WHERE input_id = 1 AND {of('sentiment')} AND metric_id = (SELECT id FROM metrics WHERE name = 'sentiment')"
    )
    report = tamper(SCORE, sums, sample=PROMPTS)
    assert named(report, "scores", 'metric "sentiment", prompts "neutral", row 0, sample 1', "stored 0.75")


def test_a_timing_inside_its_interval_can_only_be_taken_as_stored(tamper: Tamper) -> None:
    """With the old manifest its checksum tells that something was changed; with a new one nothing can."""
    changed = "UPDATE overhead_records SET value = 0.45"
    assert [m.table for m in tamper(changed, careful=False).mismatches] == ["files", "checksums"]
    report = tamper(changed)
    assert report.verified
    assert ("overhead", "a timing cannot be made again from what is stored") in report.skipped


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("CREATE TABLE more (id INTEGER)", ("sqlite_master", "table more")),
        ("CREATE TRIGGER t AFTER UPDATE ON runs BEGIN DELETE FROM points; END", ("sqlite_master", "trigger t")),
        ("PRAGMA application_id = 1", ("application_id",)),
        ("DELETE FROM points WHERE id = 3", ("point_evaluations (point_id 3", "of a row of points")),
        ("UPDATE estimates SET value = 'high' WHERE id = 1",
         ("estimates (id 1)", 'value: stored "high", expected "REAL')),
        ("UPDATE estimates SET value = 9e999 WHERE id = 1", ("estimates (id 1)", "value: stored inf")),
        ("UPDATE points SET params = '{' WHERE id = 1", ("points (id 1)", "params", "JSON")),
        ("UPDATE mixtures SET recipe = '[]' WHERE id = 1", ("points", "ValidationError")),
        ("PRAGMA user_version = 99", ("header", "user_version", f"stored 99, expected {FORMAT}")),
    ],
)  # fmt: skip
def test_what_lerpbench_would_not_write_is_refused(
    bundle: Path, tmp_path: Path, sql: str, row: tuple[str, ...]
) -> None:
    path, manifest = unpack(bundle, tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        connection.commit()
    pack(path, manifest, tmp_path / "changed.zip")
    assert named(check(tmp_path / "changed.zip"), *row)


def test_a_bundle_names_no_code_to_run(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    path, manifest = unpack(bundle, tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        for sql in ("UPDATE evaluations SET evaluator = 'evil:Evil' WHERE evaluator = 'length'",
                    "UPDATE suites SET definition = replace(definition, '\"length\"', '\"evil:Evil\"')",
                    "UPDATE points SET method = 'evil:Evil' WHERE method = 'base'"):  # fmt: skip
            connection.execute(sql)
        connection.commit()
    pack(path, manifest, tmp_path / "changed.zip")
    report = check(tmp_path / "changed.zip")
    assert "may not name code to run" in dict(report.skipped)["evil:Evil"]
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------------------ no bundle


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_what_is_no_bundle_is_refused_in_one_line(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    with pytest.raises(UserError, match="no such bundle"):
        check(path)
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot be read as a bundle"):
        check(path)
    path.write_bytes(bundle.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read as a bundle"):
        check(path)
    for names in (["../evil.db", "manifest.json"], ["results.db"], ["results.db", "manifest.json", "run.sh"]):
        with pytest.raises(UserError, match=r"expected just manifest\.json and results\.db"):
            check(zipped(path, dict.fromkeys(names, b"x")))
    assert not (tmp_path.parent / "evil.db").exists()
    with pytest.raises(UserError, match=r"manifest\.json"):
        check(zipped(path, {"results.db": b"x", "manifest.json": b"[]"}))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("results.db", b"x")
        archive.writestr("manifest.json", b"{}")
    with pytest.raises(UserError, match="packed in a way that"):
        check(path)
    with pytest.raises(UserError, match=r"results\.db would unpack to 50,000,000 bytes; refused"):
        check(zipped(path, {"results.db": bytes(50_000_000), "manifest.json": b"{}"}))


def test_a_file_is_not_written_further_than_it_says(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory says 10 bytes, the data go on."""
    path = zipped(tmp_path / "b.zip", {"manifest.json": b"{}", "results.db": b"0123456789" * 10})
    raw = path.read_bytes()
    size = (100).to_bytes(4, "little")
    assert raw.count(size) == 2  # in the local header and in the directory
    path.write_bytes(raw.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"cannot be read as a bundle|larger than it says"):
        check(path)
    written = list(tmp_path.glob("results.db"))
    assert not written


def test_the_commands(database: Path, bundle: Path, tmp_path: Path) -> None:
    def lerpbench(*arguments: object) -> Result:
        return CliRunner().invoke(app, list(map(str, arguments)))

    path = tmp_path / "b.zip"
    made = lerpbench("submit", "--db", database, "--suite", "tiny", "--out", path)
    assert made.exit_code == 0 and "suite tiny, 8 points, 6 generations" in made.stdout
    good = lerpbench("verify", path, "--extract", tmp_path / "new" / "tiny.db", "--seed", 7)
    assert good.exit_code == 0 and "things skipped; its database is" in good.stdout
    assert "4 prompts each (--seed 7) judged again" in good.stdout
    with closing(Reader.open(tmp_path / "new" / "tiny.db")) as store:
        assert list(store.suite_definitions()) == ["tiny"]
    inside, manifest = unpack(path, tmp_path)
    with closing(sqlite3.connect(inside)) as connection:
        connection.execute("UPDATE estimates SET value = 0.5 WHERE id = 1")
        connection.commit()
    pack(inside, manifest, path)
    bad = lerpbench("verify", path, "--extract", tmp_path / "bad.db")
    assert bad.exit_code == 1 and "does not verify" in bad.stdout and "WRONG    estimates (" in bad.stdout
    assert not (tmp_path / "bad.db").exists()
    assert isinstance(lerpbench("verify", database).exception, UserError)
