"""Synthetic databases and a site made from one, for every test of the leaderboard."""

from pathlib import Path
from typing import Any

import pytest
from toyboard import MakeDatabase, fill, make_suite

from bench.schema import Suite
from bench.store.write import Store
from leaderboard.read.board import Board
from leaderboard.read.query import open_stores, read_boards


@pytest.fixture(scope="session")
def make_database(tmp_path_factory: pytest.TempPathFactory) -> MakeDatabase:
    """make_database(suite, ...) -> the path of a new database holding it."""

    def make(*suites: Suite, name: str = "toy.db", **options: Any) -> Path:
        path = tmp_path_factory.mktemp("databases") / name
        store = Store.open(path)
        store.db.execute("PRAGMA synchronous = OFF")  # a test's database need not survive a power cut
        for suite in suites:
            fill(store, suite, **options)
        store.close()
        return path

    return make


@pytest.fixture(scope="session")
def toy_database(make_database: MakeDatabase) -> Path:
    return make_database(make_suite())


@pytest.fixture(scope="session")
def board(toy_database: Path) -> Board:
    with open_stores([toy_database]) as (store,):
        return read_boards(store, 0, "toy.db")[0]


@pytest.fixture(scope="session")
def toy_site(toy_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from leaderboard.show.render import render

    site = tmp_path_factory.mktemp("site")
    render([toy_database], site)
    return site
