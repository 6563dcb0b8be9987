"""Where nobody watches a bar, lines say how far long work is."""

import sys
import time

import pytest

from bench import progress


def test_lines_say_done_total_rate_and_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    with progress.on_terminal("Generating", 400) as advance:
        for _ in range(8):
            clock[0] += 20
            advance(50)
    assert capsys.readouterr().err.splitlines() == [
        "Generating: 400 ...",
        "Generating: 100 of 400, 2.5 a second, 2.0 min left",
        "Generating: 200 of 400, 2.5 a second, 80 s left",
        "Generating: 300 of 400, 2.5 a second, 40 s left",
        "Generating: done in 160.0 s",
    ]


def test_each_worker_has_a_line_and_what_shows_none_is_told_in_vain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    with progress.on_terminal("Two workers", 3) as advance:
        progress.line(advance, "worker 1", "serves")
        progress.line(advance, "worker 2", "waits")
        progress.line(advance, "worker 1", "judges")
        advance(0)
    assert capsys.readouterr().err.splitlines()[2:4] == ["  worker 1: judges", "  worker 2: waits"]
    progress.line(progress.silent, "worker 1", "serves")


def test_the_bar_has_a_line_for_each_worker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.on_terminal("Two workers", 3) as advance:
        progress.line(advance, "worker 2", "judges g1(alpha=0.5)")
        advance(2)
    shown = capsys.readouterr().err
    assert "2/3" in shown and "  worker 2: judges g1(alpha=0.5)" in shown


def test_work_that_has_not_begun_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    with progress.on_terminal("Waiting", 3) as advance:
        advance(0)
    assert capsys.readouterr().err.splitlines()[1] == "Waiting: 0 of 3"
