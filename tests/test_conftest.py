"""With CI=true a skip is a failure that says why; otherwise, and for what needs a GPU, it stays a skip."""

from pathlib import Path

import pytest

pytest_plugins = "pytester"

TESTS = """
import pytest

def test_plain():
    pytest.skip("no browser")

@pytest.mark.skipif(True, reason="no engine")
def test_marked(): ...

@pytest.fixture
def missing():
    pytest.skip("no plugin")

def test_asking(missing): ...

@pytest.mark.gpu
def test_on_a_gpu():
    pytest.skip("no GPU")

@pytest.mark.xfail
def test_known():
    assert False
"""


@pytest.mark.parametrize(
    ("ci", "outcomes"),
    [("true", {"failed": 1, "errors": 3, "skipped": 1, "xfailed": 1}), ("", {"skipped": 5, "xfailed": 1})],
)
def test_skips(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, outcomes: dict[str, int]) -> None:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\nmarkers = gpu: needs a CUDA device")
    pytester.makepyfile(test_a=TESTS, test_b="import pytest\npytest.importorskip('no_such_package')")
    monkeypatch.setenv("CI", ci)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--continue-on-collection-errors", "-rs")
    done.assert_outcomes(**outcomes)
    if ci:
        for reason in ("no browser", "no engine", "no plugin", "no_such_package"):
            done.stdout.fnmatch_lines([f"*with CI=true no test may be skipped: *{reason}*"])
