"""docs/PYTHON.md: its blocks run in order in one namespace, and print what stands under them."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

import lerpbench as lb

PAGE = Path(__file__).parent.parent / "docs" / "PYTHON.md"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The namespace after the page, which was run in a folder of its own."""
    blocks = re.findall(r"^```python\n(.*?)^```\n```text\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == PAGE.read_text().count("```python")
    names: dict[str, Any] = {"__name__": "page"}
    with contextlib.chdir(tmp_path_factory.mktemp("page")):
        for code, expected in blocks:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, str(PAGE), "exec"), names)
            assert printed.getvalue() == expected
        return names | {"rows": lb.results("first.db")}


def test_the_page_prints_what_it_shows(ran: dict[str, Any]) -> None:
    assert ran["rows"]


def test_rows_become_tables_of_other_packages(ran: dict[str, Any]) -> None:
    from datasets import Dataset

    rows = ran["rows"]
    assert Dataset.from_list(rows).num_rows == len(rows)
    pandas = pytest.importorskip("pandas")
    means = pandas.DataFrame(rows).query("metric == 'sentiment' and method == 'g1'").groupby("alpha")["value"].mean()
    assert list(means.index) == [0.0, 0.5, 1.0]


def test_every_name_is_there() -> None:
    assert all(getattr(lb, name) is not None for name in dir(lb))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        lb.absent  # noqa: B018
