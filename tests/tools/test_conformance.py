"""How the comparison with another tool's merges is computed; mergekit itself is not needed."""

import pytest
import torch

from tools.conformance import CASES, METRICS, Agreement, compare, drawn, metric_row, sure_row
from tools.peft_merges import COMBINATIONS


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


def test_rows_by_hand() -> None:
    """Ours first, then how much higher theirs is; what is drawn gets no verdict from its distance."""
    ours, theirs = dict.fromkeys(METRICS, 0.5), dict.fromkeys(METRICS, 0.75)
    assert metric_row("x", ours, theirs) == "| x | 0.5, +0.25 | 0.5, +0.25 | 0.5, +0.25 | 0.5, +0.25 |"
    for of_update, verdict in ((1e-6, "the same"), (0.05, "alike"), (0.5, "another method")):
        assert sure_row("x", "y", Agreement(1, 2, 0.1, of_update), 0.0).endswith(f"| {verdict} |")
    assert sure_row("x", "y", Agreement(1, 2, 0.1, 0.5), 0.0, "other draws").endswith("| other draws |")


def test_halves_and_products_of_a_type_are_compared_with_one_recipe() -> None:
    of = {case.type: case.recipe for case in COMBINATIONS}
    assert of["cat"] == of["linear"] and of["ties_svd"] == of["ties"] and len(of) == len(COMBINATIONS)
    assert [case.type for case in COMBINATIONS if case.drawn] == ["dare_linear", "dare_ties"]


def test_every_case_names_another_mixture() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({case.recipe.model_dump_json() for case in CASES}) == len(CASES)
