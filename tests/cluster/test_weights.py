"""Checkpoints reach nodes that lack them, byte for byte."""

from pathlib import Path

import pytest

from bench.cluster.weights import kept, packed, unpacked
from bench.schema import UserError
from bench.suite.checkpoints import resolve


def test_a_node_without_the_files_gets_them_once(tiny_trio: dict[str, Path], tmp_path: Path) -> None:
    here = resolve(str(tiny_trio["base"]))
    files = packed(here)
    elsewhere = here.model_copy(update={"path": tmp_path / "nowhere"})
    assert kept(here, tmp_path) == here and kept(elsewhere, tmp_path) is None
    got = unpacked(elsewhere, files, tmp_path)
    assert got == kept(elsewhere, tmp_path) == unpacked(elsewhere, files, tmp_path)
    assert resolve(str(got.path)).digest == here.digest
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [here.digest]


def test_files_that_changed_are_refused(tiny_trio: dict[str, Path], tmp_path: Path) -> None:
    here = resolve(str(tiny_trio["base"]))
    with pytest.raises(UserError, match="its files have changed since the run was prepared"):
        unpacked(here, {**packed(here), "config.json": b"{}"}, tmp_path)
    assert kept(here.model_copy(update={"path": tmp_path / "nowhere"}), tmp_path) is None
