"""Several databases: one board where protocol and judges agree, apart with the reason where they do not."""

from dataclasses import replace
from pathlib import Path

from toyboard import MakeDatabase, make_suite, points_of

from bench.schema import Suite
from leaderboard.read.board import Board
from leaderboard.read.merge import disagreements, load_boards, short_names
from leaderboard.read.query import open_stores
from leaderboard.show.render import render


def load(*paths: Path) -> list[Board]:
    with open_stores(paths) as stores:
        return load_boards(stores, paths)


def part(*methods: str) -> list[object]:
    return [point for point in points_of(make_suite()) if point.method in methods]


def test_parts_of_one_suite_become_one_board(make_database: MakeDatabase, toy_database: Path, tmp_path: Path) -> None:
    a = make_database(make_suite(), name="a.db", points=part("base", "g1"))
    b = make_database(make_suite(), name="b.db", points=part("base", "g2", "dexperts"))
    (board,) = load(a, b)
    (whole,) = load(toy_database)
    assert board.databases == ("a.db", "b.db")
    assert {p.method for p in board.places} == {"base", "g1", "g2", "dexperts"}
    assert [(r.database, board.places[r.place].label) for r in board.repeats] == [("b.db", "base")]
    labels = {p.label: i for i, p in enumerate(whole.places)}
    for i, place in enumerate(board.places):
        assert board.get(i, "sentiment") == whole.get(labels[place.label], "sentiment")
    for metric, sums in board.per_prompt.items():
        values = sums.values(sums.rows("").astype(float)[None, :])[0]
        assert all(abs(v - (board.value(i, metric) or 0)) < 1e-9 for i, v in enumerate(values))
    assert len({(row[2], row[3], row[4], row[5]) for row in board.rows}) == len(board.rows) == len(board.results)
    render([a, b], tmp_path)
    assert "dexperts" in (tmp_path / "index.html").read_text()
    assert (tmp_path / "texts" / "dexperts.js").is_file()


def test_a_differing_judge_keeps_boards_apart(make_database: MakeDatabase, tmp_path: Path) -> None:
    a = make_database(make_suite(), name="a.db")
    b = make_database(make_suite(), name="b.db", judge="another judge")
    boards = load(a, b)
    assert [board.databases for board in boards] == [("a.db",), ("b.db",)]
    assert boards[0].notes == ("Kept apart from b.db: the models or data behind synthetic differ.",)
    render([a, b], tmp_path)
    assert (tmp_path / "toy-transformers-a" / "index.html").is_file()
    assert "data behind synthetic differ" in (tmp_path / "toy-transformers-b" / "index.html").read_text()
    assert "data behind synthetic differ" in (tmp_path / "index.html").read_text()


def disjoint_halves(make_database: MakeDatabase, judge: str = "judge") -> tuple[Path, Path]:
    """Two databases of one suite that have no completion in common."""
    a = make_database(make_suite(), name="a.db", points=part("expert"))
    return a, make_database(make_suite(), name="b.db", points=part("dexperts"), judge=judge)


def test_disjoint_runs_prove_equal_judges_by_the_digests_of_their_models(make_database: MakeDatabase) -> None:
    (board,) = load(*disjoint_halves(make_database))
    assert {place.method for place in board.places} == {"expert", "dexperts"}
    first, second = load(*disjoint_halves(make_database, judge="another judge"))
    assert first.notes == ("Kept apart from b.db: the models or data behind synthetic differ.",)
    assert second.notes == ("Kept apart from a.db: the models or data behind synthetic differ.",)


def test_protocols_are_compared(toy_database: Path) -> None:
    (board,) = load(toy_database)
    a = board.protocol
    assert disagreements(a, a) == []
    assert "sampling differs" in disagreements(a, replace(a, sampling="{}"))[0]
    assert "dtype differs" in disagreements(a, replace(a, dtype="bfloat16"))[0]
    assert "prompts differ" in disagreements(a, replace(a, prompts={"neutral": 1}))[0]
    assert disagreements(a, replace(a, texts="other")) == ["the prompts' texts differ"]
    assert "checkpoint base differs" in disagreements(a, replace(a, checkpoints={"base": "0" * 64}))[0]
    assert "evaluator synthetic is set otherwise" in disagreements(a, replace(a, evaluators={"synthetic": "x"}))[0]


def test_the_same_database_twice_is_one_board(toy_database: Path) -> None:
    (board,) = load(toy_database, toy_database)
    assert len(board.places) == len(points_of(make_suite()))


def test_equal_file_names_get_their_folder() -> None:
    assert short_names([Path("/x/a/r.db"), Path("/x/b/r.db"), Path("/x/c.db")]) == ["a/r.db", "b/r.db", "c.db"]


def test_other_suites_never_join(make_database: MakeDatabase) -> None:
    other = Suite(**(make_suite("other").model_dump()))
    assert len(load(make_database(make_suite()), make_database(other))) == 2
