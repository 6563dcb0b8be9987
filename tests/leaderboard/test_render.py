"""The written site: numbers from the view, hostile text, gaps, several suites, nothing heavy imported."""

import csv
import errno
import json
import re
import sqlite3
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from toyboard import HOSTILE, MakeDatabase, make_suite, points_of

from bench.schema import Suite, UserError
from bench.store.write import Store
from leaderboard.measure.comparison import compare
from leaderboard.numbers import number
from leaderboard.read.merge import load_boards
from leaderboard.read.query import open_stores
from leaderboard.show.card import card
from leaderboard.show.render import render
from leaderboard.show.tables import by_method, settings


class Page(HTMLParser):
    """Tags, links and the text of script elements."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.json = ""
        self._json = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("href", "src") and v]
        if given.get("id"):
            self.ids.append(str(given["id"]))
        self._json = given.get("type") == "application/json"

    def handle_data(self, data: str) -> None:
        if self._json:
            self.json += data

    def handle_endtag(self, tag: str) -> None:
        self._json = False


def rows_of(database: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(database) as db:
        return db.execute("SELECT * FROM results").fetchall()


def test_figures_hold_the_views_numbers(toy_database: Path, toy_site: Path) -> None:
    data = json.loads(Page(toy_site / "index.html").json)
    labels = {place["label"]: i for i, place in enumerate(data["places"])}
    for _, _, method, params, prompts, metric, value, low, high, n_scored, n_total in rows_of(toy_database):
        inside = ", ".join(f"{k}={v:g}" for k, v in json.loads(str(params)).items())
        i = labels[f"{method}({inside})" if inside else str(method)]
        column = data["values"][metric][prompts or ""]
        for key, expected in (("v", value), ("lo", low), ("hi", high)):
            assert column[key][i] == (None if expected is None else pytest.approx(expected, rel=1e-4))
        for key, expected in (("n", n_scored), ("N", n_total)):
            assert (column[key][i] if isinstance(column[key], list) else column[key]) == expected


def test_table_shows_numbers_of_the_view(toy_database: Path, toy_site: Path) -> None:
    shown = re.findall(
        r'class="num" data-sort="([0-9.e-]+)"><span class="v">([^<]+)<', (toy_site / "index.html").read_text()
    )
    stored = {row[6] for row in rows_of(toy_database)}
    found = [float(raw) for raw, _ in shown]
    assert len(found) > 40
    assert all(text == number(float(raw)) for raw, text in shown if raw not in ("1", "3"))
    reach = [value for value in found if value in stored]
    assert len(reach) > 30  # the rest are derived: rank correlations, barriers, models per token


def test_the_run_page_shows_who_did_what_and_how_busy_they_were(toy_site: Path) -> None:
    """Worker 2 generated for 6 s and judged for 1 s of its 10."""
    page = (toy_site / "runs.html").read_text(encoding="utf-8")
    row = re.search(r'<tr><th scope="row">worker 2</th>.*?</tr>', page)
    assert row is not None
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[0])
    assert cells[:-1] == ["node 1", "cpu", "30", "60", "6.0", "1.0", "10.0"]
    assert "width: 70%" in cells[-1] and cells[-1].endswith("70 %")


def test_the_download_is_the_view(toy_database: Path, toy_site: Path) -> None:
    with (toy_site / "results.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    rows = rows_of(toy_database)
    assert lines[0] == ["suite", "engine", "method", "params", "prompts", "metric", "value", "low", "high", "n_scored",
                        "n_total"]  # fmt: skip
    assert sorted(lines[1:]) == sorted(["" if v is None else str(v) for v in row] for row in rows)


def test_hostile_completions_stay_text(toy_site: Path) -> None:
    for path in toy_site.rglob("*"):
        if path.suffix in (".html", ".js") and "plotly" not in path.name:
            assert "window.hacked" not in path.read_text(encoding="utf-8") or path.parent.name == "texts"
    for path in (toy_site / "texts").glob("*.js"):
        content = path.read_text(encoding="utf-8")
        assert "<" not in content and "\u2028" not in content
        file, texts = json.loads("[" + content.removeprefix("lerpbench.add(").removesuffix(");\n") + "]")
        assert file == path.stem
        assert any(HOSTILE in generation["t"] for generation in texts.values())


def test_every_completion_is_carried(toy_database: Path, toy_site: Path) -> None:
    stored = {}
    for path in (toy_site / "texts").glob("*.js"):
        content = path.read_text(encoding="utf-8").removeprefix("lerpbench.add(").removesuffix(");\n")
        stored |= json.loads("[" + content + "]")[1]
    data = json.loads(Page(toy_site / "completions.html").json)
    with sqlite3.connect(toy_database) as db:
        rows = db.execute("SELECT method, params, prompts, row, sample, text FROM completions").fetchall()
    place_of = {place["label"]: place for place in data["places"]}
    prompt_of = {(s, row): i for i, (s, row, _) in enumerate(data["prompts"])}
    for method, params, prompts, row, sample, text in rows:
        inside = ", ".join(f"{k}={v:g}" for k, v in json.loads(params).items())
        place = place_of[f"{method}({inside})" if inside else method]
        assert stored[place["key"]]["t"][prompt_of[prompts, row] * data["samples"] + sample] == text


def test_a_suite_that_steers_something_else_has_the_same_pages(
    make_database: MakeDatabase, toy_site: Path, tmp_path: Path
) -> None:
    """The same numbers under another name: every page is the usual one but for the name, which stands nowhere."""
    usual = make_suite()
    evaluators = [{"name": "classifier"}, {"name": "perplexity"}]
    suite = Suite(**(usual.model_dump() | {"goal": {"control": "toxicity"}, "evaluators": evaluators}))
    database = make_database(suite)
    render([database], tmp_path)
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == {
        path.relative_to(toy_site) for path in toy_site.rglob("*")
    }
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "plotly.min.js" and path.suffix != ".png":
            assert "sentiment" not in path.read_text(encoding="utf-8").lower(), path.name
    with open_stores([database]) as (store,):
        (board,) = load_boards([store], [database])
    texts = (by_method(board), settings(board), card([board]), str(compare([database], "g2", "g1")))
    assert all("toxicity" in text and "sentiment" not in text.lower() for text in texts)
    for name in ("index", "ranking", "paper"):
        assert len(Page(tmp_path / f"{name}.html").tags) == len(Page(toy_site / f"{name}.html").tags)
        assert "toxicity" in (tmp_path / f"{name}.html").read_text(encoding="utf-8").lower()


def test_several_goals_are_several_boards_with_a_switch(make_database: MakeDatabase, tmp_path: Path) -> None:
    goals = [{}, {"control": "acceptability", "direction": "lower", "cost": ["perplexity"], "targets": [0.79]}]
    render([make_database(Suite(**(make_suite().model_dump() | {"goal": goals})))], tmp_path)
    folders = [tmp_path / f"toy-transformers-{control}" for control in ("sentiment", "acceptability")]
    first = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert all(re.search(rf"{control}</a></h2>", first) for control in ("sentiment", "acceptability"))
    for folder in folders:
        addresses = Page(folder / "ranking.html").addresses
        assert all(f"../{other.name}/ranking.html" in addresses for other in folders)
    text = (folders[1] / "ranking.html").read_text(encoding="utf-8")
    assert ">Acceptability 0.79 or less<" in text and "Sentiment 0" not in text
    index = (folders[1] / "index.html").read_text(encoding="utf-8")
    best = re.search(r"reaches acceptability <strong>([0-9.]+)", index)
    assert best is not None and float(best[1]) < 0.79  # steered down, from 0.80 of the base


def test_no_outside_address(toy_site: Path) -> None:
    for path in toy_site.rglob("*.html"):
        for address in Page(path).addresses:
            assert not re.match(r"(https?:)?//", address), address
            if not address.startswith(("#", "data:")):
                assert (path.parent / re.split("[?#]", address)[0]).is_file(), address


def test_ids_are_unique(toy_site: Path) -> None:
    for path in toy_site.rglob("*.html"):
        ids = Page(path).ids
        assert len(ids) == len(set(ids))


def test_unknown_metric_and_hostile_description_show(toy_site: Path) -> None:
    text = (toy_site / "index.html").read_text(encoding="utf-8")
    assert '<option value="surprise">' in text
    assert "<b>hostile" not in text


def test_plotly_is_written_once_and_the_site_is_small(toy_site: Path) -> None:
    assert len(list(toy_site.rglob("plotly*.js"))) == 1
    assert sum(path.stat().st_size for path in toy_site.rglob("*") if path.is_file()) < 8e6


def test_two_suites_are_two_pages(make_database: MakeDatabase, tmp_path: Path) -> None:
    render([make_database(make_suite("one"), make_suite("two"))], tmp_path)
    for name in ("one", "two"):
        other = {"one": "two", "two": "one"}[name]
        text = (tmp_path / f"{name}-transformers" / "index.html").read_text()
        assert f"The {name} suite" in text and f"The {other} suite" not in text
    index = Page(tmp_path / "index.html")
    assert {"one-transformers/index.html", "two-transformers/index.html"} <= set(index.addresses)
    assert not (tmp_path / "results.csv").exists()


def test_two_engines_are_two_pages(tmp_path: Path) -> None:
    from toyboard import fill

    path = tmp_path / "engines.db"
    store = Store.open(path)
    store.db.execute("PRAGMA synchronous = OFF")
    for engine in ("transformers", "vllm"):
        fill(store, make_suite(), engine, judge=engine)
    store.close()
    render([path], tmp_path / "site")
    assert (tmp_path / "site" / "toy-vllm" / "index.html").is_file()
    assert (tmp_path / "site" / "toy-transformers" / "index.html").is_file()


def test_empty_database_says_so(tmp_path: Path) -> None:
    Store.open(tmp_path / "empty.db").close()
    render([tmp_path / "empty.db"], tmp_path / "site")
    assert "no points yet" in (tmp_path / "site" / "index.html").read_text()


def test_points_without_results_or_completions_say_so(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bare.db")
    suite = make_suite()
    suite_id = store.suite(suite)
    for position, point in enumerate(points_of(suite)):
        mixture = store.mixture(str(position), "transformers", "float32", point.recipe, {})
        store.place(suite_id, "transformers", position, point, mixture)
    store.close()
    render([tmp_path / "bare.db"], tmp_path / "site")
    assert "No results are stored" in (tmp_path / "site" / "index.html").read_text()
    assert "No completions stored" in (tmp_path / "site" / "completions.html").read_text()


def test_only_references(make_database: MakeDatabase, tmp_path: Path) -> None:
    suite = make_suite()
    points = [point for point in points_of(suite) if not point.params]
    render([make_database(suite, points=points)], tmp_path)
    assert "antiexpert" in (tmp_path / "index.html").read_text()


def test_hostile_suite_title_is_escaped(make_database: MakeDatabase, tmp_path: Path) -> None:
    suite = Suite(**(make_suite().model_dump() | {"title": "<script>alert(1)</script>"}))
    render([make_database(suite)], tmp_path)
    for path in tmp_path.rglob("*.html"):
        assert "<script>alert" not in path.read_text()


def test_rerendering_removes_its_own_old_files_only(make_database: MakeDatabase, tmp_path: Path) -> None:
    render([make_database(make_suite("one"), make_suite("two"))], tmp_path)
    (tmp_path / "mine.txt").write_text("keep")
    render([make_database(make_suite("one"))], tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert not (tmp_path / "two-transformers" / "index.html").exists()


@pytest.mark.parametrize("after", [0, 3, 20])
def test_a_full_disk_leaves_the_old_site_as_it_was(
    toy_database: Path, make_database: MakeDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    site = tmp_path / "site"
    render([toy_database], site)
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    write, left = Path.write_bytes, [after]

    def full(path: Path, *arguments: Any, **options: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="the site cannot be written: No space left on device"):
        render([make_database(make_suite("another"))], site)
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before


def test_site_that_is_a_file(toy_database: Path, tmp_path: Path) -> None:
    (tmp_path / "site").write_text("")
    with pytest.raises(UserError, match="expected a folder"):
        render([toy_database], tmp_path / "site")


def test_no_model_code_is_imported(toy_database: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from leaderboard.show.render import render; "
        f"render([Path({str(toy_database)!r})], Path({str(tmp_path)!r})); "
        "print([m for m in ('torch', 'transformers', 'vllm', 'datasets') if m in sys.modules])"
    )
    started = time.perf_counter()
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
    assert time.perf_counter() - started < 15  # about one second on a quiet machine
