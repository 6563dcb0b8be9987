"""A command loads what it needs: help nothing heavy, a plan no torch."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "datasets", "pandas", "plotly", "vllm", "pyarrow", "sqlite_utils"}
PROGRAM = """
import sys
sys.argv = ["lerpbench", *{arguments!r}]
from bench.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("loaded", *sys.modules)
"""


def loaded(*arguments: str) -> set[str]:
    """The modules in memory when the command is done."""
    command = [sys.executable, "-c", PROGRAM.format(arguments=arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["methods"], ["methods", "g2"]])
def test_help_and_lists_load_nothing_heavy(arguments: list[str]) -> None:
    assert not HEAVY & loaded(*arguments)


def test_help_needs_no_pydantic() -> None:
    assert not {"pydantic", "numpy", "yaml"} & loaded("--help")


def test_importing_the_package_loads_nothing() -> None:
    program = "import sys; import lerpbench; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not (HEAVY | {"pydantic", "numpy", "bench"}) & set(done.stdout.split())


ENDING = """
import atexit, sys, threading, time
atexit.register(print, "registered")
sys.argv = ["lerpbench", *{arguments!r}]
from bench.cli import command
def run():
    time.sleep(1)
    print("thread")
if {thread}:
    threading.Thread(target=run).start()
command()
"""


@pytest.mark.parametrize(("arguments", "status"), [(["methods", "g2"], 0), (["methods", "g7"], 2), (["--nosuch"], 2)])
@pytest.mark.parametrize("thread", [False, True])
def test_a_command_ends_with_its_status_when_all_is_done(arguments: list[str], status: int, thread: bool) -> None:
    command = [sys.executable, "-c", ENDING.format(arguments=arguments, thread=thread)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == status
    assert done.stdout.splitlines()[-1 - thread :] == [*["thread"] * thread, "registered"]
    assert bool(done.stderr) is (status == 2) and "Traceback" not in done.stderr
