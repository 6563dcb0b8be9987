"""Where nobody watches a bar, lines say how far long work is."""

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


def test_work_that_has_not_begun_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    with progress.on_terminal("Waiting", 3) as advance:
        advance(0)
    assert capsys.readouterr().err.splitlines()[1] == "Waiting: 0 of 3"
