"""How the comparison with another tool's merges is computed; mergekit itself is not needed."""

import pytest
import torch

from tools.conformance import CASES, compare, drawn


def test_agreement_by_hand() -> None:
    """Apart by (0, 0.3, 0.4): norm 0.5; the update is (3, 4, 0): norm 5; one tensor of two is equal."""
    base = {"a": torch.zeros(1), "b": torch.zeros(2)}
    ours = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0, 0.0])}
    theirs = {"a": torch.tensor([3.0]), "b": torch.tensor([4.3, 0.4])}
    found = compare(ours, theirs, base)
    assert (found.equal, found.total) == (1, 2)
    assert found.largest == pytest.approx(0.4)
    assert found.of_update == pytest.approx(0.1)


def test_another_set_of_tensors_is_refused() -> None:
    one, other = {"a": torch.zeros(1)}, {"b": torch.zeros(1)}
    with pytest.raises(SystemExit, match="only one side has the tensors"):
        compare(one, other, one)


def test_drawn_elements_by_hand() -> None:
    """Of eight elements four are left, each doubled."""
    base, expert = {"a": torch.zeros(8)}, {"a": torch.ones(8)}
    found = drawn({"a": torch.tensor([2.0, 0.0] * 4)}, base, expert)
    assert (found.kept, found.lowest, found.median, found.highest) == (0.5, 2, 2, 2)


def test_every_case_names_another_mixture() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({case.recipe.model_dump_json() for case in CASES}) == len(CASES)
