"""The pinned versions are ones that lerpbench allows, and all that it needs is pinned."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from tools.constraints import OWN, needed

ROOT = Path(__file__).parents[2]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_what_lerpbench_needs_is_pinned_within_what_it_allows() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in map(Requirement, asked):
        if requirement.name not in OWN:
            assert requirement.specifier.contains(pinned()[requirement.name]), requirement


def test_the_closure_of_a_package_is_found() -> None:
    found: dict[str, str] = {}
    needed("pydantic", frozenset(), found)
    assert {"pydantic", "pydantic-core", "typing-extensions"} <= found.keys() <= {*pinned(), *OWN}


def test_a_package_that_is_not_there_is_left_out() -> None:
    found: dict[str, str] = {}
    needed("no-such-package-as-this", frozenset(), found)
    assert found == {}
