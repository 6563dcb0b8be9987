"""A board of 200 submissions: read, merged, spread and rendered within a minute."""

import shutil
import time
from contextlib import closing
from pathlib import Path

from toyboard import fill, make_suite

from bench.store.read import Reader
from bench.store.write import Store
from bench.submissions.bundle import DATABASE, facts, pack, record
from leaderboard.show.render import render

SUBMISSIONS, DIFFERENT = 200, 4


def test_two_hundred_bundles_are_one_board_within_a_minute(tmp_path: Path) -> None:
    for k in range(DIFFERENT):
        path = tmp_path / str(k) / DATABASE
        path.parent.mkdir()
        with closing(Store.open(path)) as store:
            fill(store, make_suite(), seed=k)
        with closing(Reader.open(path)) as reader:
            manifest = facts(reader).model_copy(update={"files": {DATABASE: record(path)}})
        pack(path, manifest, tmp_path / f"who{k}.toy.zip")
    for k in range(DIFFERENT, SUBMISSIONS):
        shutil.copyfile(tmp_path / f"who{k % DIFFERENT}.toy.zip", tmp_path / f"who{k}.toy.zip")
    start = time.perf_counter()
    render(sorted(tmp_path.glob("*.zip")), tmp_path / "site")
    seconds = time.perf_counter() - start
    print(f"{SUBMISSIONS} bundles of {len(make_suite().methods)} methods rendered in {seconds:.1f} s")
    assert f"From {SUBMISSIONS} <a" in (tmp_path / "site" / "index.html").read_text()
    assert seconds < 60
