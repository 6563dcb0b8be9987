"""The command line as a user meets it: bad input is one clear line and exit code 2, and nothing stored is lost."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from bench.cli.common import Screen
from bench.terminal import shown


def lerpbench(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, check=False)


def refused(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("lerpbench: ")
    assert message in lines[0]


@pytest.fixture
def suite(tiny_suite: Path, tmp_path: Path) -> Path:
    """A copy of the tiny suite that a test may spoil."""
    folder = tmp_path / "suite"
    shutil.copytree(tiny_suite.parent, folder)
    return folder / "tiny.yaml"


def test_run_plan_render(tiny_suite: Path, tmp_path: Path) -> None:
    """The whole way, then again: everything is stored and the plan says so."""
    arguments = (tiny_suite, "--db", tmp_path / "r.db")
    first = lerpbench("run", *arguments, "--site", tmp_path / "site", "--limit-prompts", 1)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "site" / "index.html").is_file()
    planned = lerpbench("plan", *arguments, "--limit-prompts", 1)
    assert "nothing to generate" in planned.stdout
    assert "stored: 6 of 6 mixtures' completions" in planned.stdout
    again = lerpbench("run", *arguments, "--site", tmp_path / "site", "--limit-prompts", 1)
    assert again.returncode == 0 and "Generating" not in again.stderr


def test_plan_writes_nothing(tiny_suite: Path, tmp_path: Path) -> None:
    planned = lerpbench("plan", tiny_suite, "--db", tmp_path / "r.db")
    assert "8 points, 6 distinct mixtures" in planned.stdout
    assert "5 prompts x 3 samples = 15 completions a mixture, 90 in all" in planned.stdout
    assert not (tmp_path / "r.db").exists()


def test_unknown_names_are_answered_with_the_nearest(suite: Path, tmp_path: Path) -> None:
    refused(lerpbench("run", "minni"), "unknown suite 'minni'; did you mean 'mini'?")
    refused(lerpbench("plan", suite, "--engine", "transformer"), "did you mean 'transformers'?")
    refused(lerpbench("methods", "g22"), "unknown method 'g22'; did you mean 'g2'?")
    suite.write_text(suite.read_text().replace("- distinct", "- distinkt"))
    refused(lerpbench("plan", suite), "unknown evaluator 'distinkt'; did you mean 'distinct'?")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("alpha: [0, 0.5, 1]", "alpha: high", "methods[1].alpha: expected a number or a list of numbers, got 'high'"),
        ("alpha: [0, 0.5, 1]", "alpha: [.inf]", "methods[1].alpha: input should be a finite number"),
        ("./neutral.jsonl", "./absent.jsonl", "no such file"),
        ("base: /", "base: /absent/", "checkpoints.base: checkpoint /absent/"),
        ("samples: 3", "sampels: 3", "unknown key 'sampels'; did you mean 'samples'?"),
    ],
)
def test_a_spoiled_suite_is_refused(suite: Path, old: str, new: str, message: str) -> None:
    assert old in suite.read_text()
    suite.write_text(suite.read_text().replace(old, new, 1))
    refused(lerpbench("plan", suite), message)


def test_a_point_that_fails_is_listed_and_the_rest_is_there(suite: Path, tmp_path: Path) -> None:
    suite.write_text(suite.read_text().replace("alpha: [0, 0.5, 1]", "alpha: [0, 1.0e+30]"))
    arguments = (suite, "--db", tmp_path / "r.db", "--site", tmp_path / "site", "--limit-prompts", 1)
    result = lerpbench("run", *arguments, "--only", "g1")
    assert result.returncode == 1
    told = [line for line in result.stderr.splitlines() if line.startswith("lerpbench: ")]
    assert len(told) == 2 and told[0].startswith("lerpbench: g1(alpha=1e+30) failed: ")
    assert (tmp_path / "site" / "index.html").is_file()


def test_a_name_with_an_escape_is_shown_as_text(tmp_path: Path) -> None:
    refused(lerpbench("plan", "./\x1b[2Jgone\n.yaml"), "./\\x1b[2Jgone\\n.yaml: no such suite file")


def test_a_table_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("\x1b]0;title\x07", title="\x9b2J")
    table.add_row("a\u202eb")
    Screen(force_terminal=True, width=60).print(table)
    printed = capsys.readouterr().out
    assert "\\x1b]0;t" in printed and "\\x9b2J" in printed and "a\\u202eb" in printed
    assert not {"\x1b]", "\x9b", "\u202e"} & {printed[i : i + n] for n in (1, 2) for i in range(len(printed))}


def test_a_long_line_is_cut_in_its_middle() -> None:
    """600 characters are left: 400 of the beginning, 200 of the end."""
    assert shown("a" * 500 + "b" * 500) == "a" * 400 + " [... 400 characters ...] " + "b" * 200
    assert shown("c" * 600) == "c" * 600


def test_an_empty_prompt_is_refused(suite: Path) -> None:
    (suite.parent / "neutral.jsonl").write_text('{"text": ""}\n')
    refused(lerpbench("plan", suite), "row 0 is empty")


def test_a_hub_name_without_a_hub_is_refused(suite: Path, tmp_path: Path) -> None:
    suite.write_text(suite.read_text().replace("{base: /", "{more: some-owner/some-model, base: /", 1))
    refused(lerpbench("plan", suite), "the hub could not give it")


def test_the_paper_suite_says_how_large_it_is_and_what_it_lacks(tmp_path: Path) -> None:
    """441 points of g3; 250,000 completions x (85 + 4.5 x 30) bytes = 55 MB a mixture."""
    planned = lerpbench("plan", "paper", cwd=tmp_path)
    refused(planned, "neutral_prompts.jsonl): the hub could not give it")
    assert "│ g3         │ 441    │" in planned.stdout
    assert "at most 10,000 prompts x 25 samples = 250,000 completions a mixture" in planned.stdout
    assert "room: at most 26.5 GB" in planned.stdout  # 481 distinct mixtures
    assert list(tmp_path.iterdir()) == []


def test_databases_that_cannot_be_used_stay_as_they_are(tiny_suite: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE precious (x)")
    before = foreign.read_bytes()
    refused(lerpbench("run", tiny_suite, "--db", foreign, "--site", tmp_path / "s"), "not a lerpbench database")
    assert foreign.read_bytes() == before
    refused(lerpbench("render", tmp_path / "absent.db", "--site", tmp_path / "s"), "no such database")


def test_an_unwritable_site_is_refused_before_the_work(tiny_suite: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(
        lerpbench("run", tiny_suite, "--db", tmp_path / "r.db", "--site", tmp_path / "file" / "site"),
        "cannot be written",
    )
    assert not (tmp_path / "r.db").exists()


def test_looking_around() -> None:
    assert "Formula: theta0 + alpha (theta+ - theta-)" in lerpbench("methods", "g2").stdout
    assert "P(neutral)" in lerpbench("evaluators", "sentiment").stdout
    assert "mini" in lerpbench("suites").stdout
    assert "engine auto" in lerpbench("doctor").stdout
    assert "--limit-prompts" in lerpbench("run", "--help").stdout
