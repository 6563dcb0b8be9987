"""The README's promises: its snippets run, its commands exist, its suite is one."""

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import yaml
from typer.main import get_command

import evaluators
import methods
from bench.cli import app
from bench.suite.load import load_suite

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [body for name, body in fenced if name == language]


def test_the_method_and_the_evaluator_of_the_readme_run(tiny_suite: Path, tmp_path: Path) -> None:
    for code in blocks("python"):
        name = re.match(r"# (\w+\.py)\n", code)
        assert name is not None
        assert len([line for line in code.splitlines()[1:] if line.strip()]) < 20
        (tmp_path / name[1]).write_text(code)
    suite = yaml.safe_load(tiny_suite.read_text().replace("./", f"{tiny_suite.parent}/"))
    suite["methods"] = ["base", {"my_methods:TaskVector": {"alpha": [0, 1]}}]
    suite["evaluators"] = ["my_evaluators:Exclamations"]
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(suite))
    command = [sys.executable, "-m", "bench.cli", "evaluate", "s.yaml", "--db", "r.db"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    for stage in ("generate", "evaluate"):
        command[3] = stage
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "r.db") as connection:
        found = connection.execute("SELECT method, value FROM results WHERE metric = 'exclamations'").fetchall()
    assert {method for method, _ in found} == {"base", "my_methods:TaskVector"}
    assert all(0 <= value <= 1 for _, value in found)


def test_every_command_of_the_readme_exists_with_its_options() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    used = [shlex.split(line, comments=True) for block in blocks("") for line in block.splitlines()]
    calls = [words[1:] for words in used if words and words[0] == "lerpbench"]
    assert calls
    for name, *rest in calls:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options


def test_every_command_is_documented() -> None:
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert re.search(rf"\b{name}\b", README), f"README.md does not mention `lerpbench {name}`"


def test_the_suites_of_the_readme_are_suites(tmp_path: Path) -> None:
    names = []
    for text in blocks("yaml"):
        (tmp_path / "s.yaml").write_text(text)
        names.append(load_suite(str(tmp_path / "s.yaml"), methods.registry(), evaluators.registry()).name)
    assert names == ["my-suite", "real"]


def test_every_file_that_the_readme_links_to_is_there() -> None:
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (root / target).exists(), target
