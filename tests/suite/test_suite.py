"""Suites: packaged ones load; a mistake is one sentence with file, key, expectation and the nearest name."""

from pathlib import Path
from typing import Any

import pytest

import lerpbench as lb
import methods
from bench.schema import Suite, UserError
from bench.suite.load import combinations, packaged_suites
from bench.suite.points import plan_points


def load(path: Path | str) -> Suite:
    return lb.load(path)


def written(folder: Path, body: str) -> Path:
    path = folder / "s.yaml"
    path.write_text("name: s\ncheckpoints: {base: x}\nprompts: {n: {source: ./n.jsonl}}\n" + body)
    return path


@pytest.mark.parametrize("name", packaged_suites())
def test_packaged_suites_load(name: str) -> None:
    assert load(name).name == name


def test_the_mini_suite_is_as_wide_as_promised() -> None:
    sweeps = {spec.name: spec.params for spec in load("mini").methods}
    assert all(len(sweeps[name]["alpha"]) >= 7 for name in ("g1", "g2", "dexperts"))
    assert len(sweeps["g3"]["alpha"]) >= 5 and len(sweeps["g3"]["beta"]) >= 5


def test_paths_are_relative_to_the_suite(tmp_path: Path) -> None:
    suite = load(written(tmp_path, "methods: [base]\n"))
    assert suite.prompts["n"].source == str((tmp_path / "n.jsonl").resolve())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("methods: [g7]\n", r"s\.yaml: methods\[0\]: unknown method 'g7'; did you mean 'g1'\?|did you mean 'g2'|'g3'"),
        (
            "methods: [{g1: {alpha: high}}]\n",
            r"methods\[0\]\.alpha: expected a number or a list of numbers, got 'high'",
        ),
        (
            "methods: [{g1: {alpha: 1e20}}]\n",
            r"alpha: expected a .*, got '1e20', which is text in YAML 1.1; write 1.0e\+20",
        ),
        ("methods: [{g1: {alpha: -2.5E3}}]\n", r"got '-2.5E3', which is text in YAML 1.1; write -2.5e\+3"),
        ("methods: [{g1: {alpha: .inf}}]\n", r"methods\[0\]\.alpha: input should be a finite number, got inf"),
        ("methods: [{g1: {alpha: [0, .nan]}}]\n", r"methods\[0\]\.alpha: input should be a finite number, got nan"),
        ("methods: [{g1: {alpha: []}}]\n", r"methods\[0\]\.alpha: expected a number or a list of numbers"),
        ("methods: [{g1: {alhpa: 1}}]\n", r"methods\[0\]\.alhpa: unknown key 'alhpa'; did you mean 'alpha'"),
        ("methods: [{base: {alpha: 1}}]\n", r"base takes no parameters"),
        ("methods: [g1]\n", r"methods\[0\]\.alpha: missing"),
        (
            "methods: [{mixture: {space: logit, expert: 1}}]\n",
            r"methods\[0\]\.space: input should be 'weights', 'logits' or 'probs', got 'logit'",
        ),
        ("methods: [{dexperts: {alpha: 1, draft: g1}}]\n", r"methods\[0\]\.draft: input should be 'g2', got 'g1'"),
        ("methods: [{dexperts: {alpha: 1, draft: g2, k: true}}]\n", r"methods\[0\]\.k: expected a number .*, got True"),
        ("methods: [{dexperts: {alpha: 1, draft: g2, k: many}}]\n", r"methods\[0\]\.k: .*, got 'many'"),
        ("methods: [{mixture: {expert: high}}]\n", r"methods\[0\]\.expert: expected a number or a list of numbers"),
        ("methods: [{mixture: {expert: .inf}}]\n", r"methods\[0\]\.expert: input should be a finite number, got inf"),
        (
            "methods: [base]\nevaluators: [distinct]\ngoal: {control: distinct_22}\n",
            r"goal: no evaluator of the suite reports 'distinct_22'; did you mean 'distinct_2'",
        ),
        ("methods: [base]\ngoal: [{contol: x}]\n", r"goal\[?\.?0.*unknown key 'contol'; did you mean 'control'"),
        ("methods: []\n", r"methods: expected at least one method"),
        ("methods: base\n", r"methods: expected a list, got 'base'"),
        ("methods: [base]\nevaluators: [sentimant]\n", r"unknown evaluator 'sentimant'; did you mean 'sentiment'"),
        ("methods: [base]\nevaluators: [{sentiment: {modell: x}}]\n", r"unknown key 'modell'; did you mean 'model'"),
        ("methods: [base]\nsampling: {top_p: 2}\n", r"sampling\.top_p: input should be less than or equal to 1, got 2"),
        ("methods: [base]\nsamplings: {}\n", r"unknown key 'samplings'; did you mean 'sampling'"),
        ("methods: [{g1: 1, g2: 2}]\n", r"expected a name or \{name: \{options\}\}"),
        ("methods: [base\n", r"not readable as YAML"),
        ("methods: [{mixture: {1: 0.5}}]\n", r"methods\[0\]: expected names as keys, got 1; put it in quotes"),
        ("methods: [base]\nevaluators: [{distinct: {1: 2}}]\n", r"evaluators\[0\]: expected names as keys, got 1"),
        ("methods: [base]\n1: 2\n", r"unknown key 1"),
        ("methods: [base]\nmethods: [expert]\n", r"the key 'methods' stands twice.*line 5"),
        ("methods: [base]\nevaluators: [{distinct: {suffix: a, suffix: b}}]\n", r"the key 'suffix' stands twice"),
        ("methods: [base]\nsampling: {temperature: .inf}\n", r"sampling\.temperature: input should be a finite number"),
        ("methods: [base]\ntitle: " + "[" * 5000 + "\n", r"not readable as YAML: nested too deeply"),
        ("methods: &m [*m]\n", r"its aliases unfold to more than"),
        (
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(f"{y}: &{y} [{', '.join([f'*{x}'] * 8)}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)),
            r"its aliases unfold to more than 100,000 values",
        ),
        ('methods: [base]\ntitle: "\\ud800"\n', r"not readable as YAML|holds half a character"),
        (
            f"methods: [{{g3: {{alpha: {list(range(1000))}, beta: {list(range(1000))}}}}}]\n",
            r"g3 spans 1,000,000 points \(1,000 alpha x 1,000 beta\), more than 100,000",
        ),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        plan_points(load(written(tmp_path, body)), methods.registry())
    assert "\n" not in str(caught.value)


def test_an_unknown_suite_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'mini'"):
        load("minni")
    with pytest.raises(UserError, match="no such suite file"):
        load("./absent.yaml")


def test_a_prompt_set_has_a_name(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text('name: s\ncheckpoints: {base: x}\nprompts: {"": {source: ./n.jsonl}}\nmethods: [base]\n')
    with pytest.raises(UserError, match=r"prompts.*at least 1 character"):
        load(path)


def test_what_is_written_once_may_be_pointed_to(tmp_path: Path) -> None:
    body = "methods: [{g1: {alpha: &a [0, 1]}}, {g2: {alpha: *a}}]\n"
    assert [spec.params["alpha"] for spec in load(written(tmp_path, body)).methods] == [(0, 1), (0, 1)]


def test_words_may_be_parameters(tmp_path: Path) -> None:
    (spec,) = load(written(tmp_path, "methods: [{dexperts: {alpha: [0.5, 1], draft: g2, k: auto}}]\n")).methods
    assert spec.params == {"alpha": (0.5, 1), "draft": ("g2",), "k": ("auto",)}


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    path = written(tmp_path, "methods: [base]\n")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path).name == "s"


def test_combinations_are_the_points_before_anything_is_checked() -> None:
    for name in packaged_suites():
        suite = lb.load(name)
        if suite.finetune is not None:
            assert combinations(name) == combinations(suite) == 0, "its experts are made first"
            continue
        n_points = len(plan_points(suite, methods.registry()))
        assert n_points <= combinations(name) <= 1.2 * n_points and combinations(suite) == combinations(name)
    methods_of = {
        "methods": ["base", {"g1": {"alpha": [0, 1], "note": 3}}, {"g3": {"alpha": [0, 1], "beta": [1, 2, 3]}}]
    }
    assert combinations(methods_of) == 1 + 2 + 6 and combinations(methods_of, ["g3"]) == 6
    odd: list[Any] = ["nosuch", "no/such.yaml", 3, {}, {"methods": 3}, {"methods": [["g1"]]}, {"methods": [{"g1": 2}]}]
    assert [combinations(suite) for suite in odd] == [0] * len(odd)
