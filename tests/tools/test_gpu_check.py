"""The GPU check on a CPU and a tiny shape, without vLLM: parity and speed of the transformers engine against itself."""

import sys
import tempfile
from pathlib import Path

import pytest

from bench.schema import Recipe, Sampling
from tools import gpu_check
from tools.random_models import SHAPES, random_checkpoints, random_prompts


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> gpu_check.Check:
    return gpu_check.Check(SHAPES["tiny"], tmp_path_factory.mktemp("models"), "cpu")


def test_a_text_has_a_token_a_letter_and_models_are_made_once(check: gpu_check.Check) -> None:
    model = check.opener("transformers", "float32")().serve(Recipe(space="weights", coefficients={"base": 1}))
    prompts = random_prompts(3, SHAPES["tiny"])
    assert [len(model.token_ids(p.text)) for p in prompts] == [len(p.text) for p in prompts]
    drawn = model.generate(prompts, Sampling(samples=1, max_new_tokens=4, temperature=0))
    assert [len(c.text) for c in drawn] == [c.n_tokens for c in drawn]
    again = random_checkpoints(check.checkpoints["base"].path.parent, SHAPES["tiny"], "cpu")
    assert again == check.checkpoints and len({c.digest for c in again.values()}) == 3


def test_rounding_alone_passes_parity(check: gpu_check.Check) -> None:
    text, report = check.run("rounding")
    assert "they agree" in text
    assert [point["label"] for point in report["points"]] == [
        "base",
        "g1(alpha=1.5)",
        "g2(alpha=0.7)",
        "dexperts(alpha=0.7)",
    ]
    assert 1e-4 < max(point["max_logprob_difference"] for point in report["points"]) < 0.3


def test_speed_names_the_methods_and_the_mix_against_its_bytes(check: gpu_check.Check) -> None:
    text, records = check.run("speed-transformers")
    timed = {record["method"] for record in records if record["metric"] == "tokens_per_s"}
    assert timed == {"base", "base (again)", "g2", "dexperts"}
    assert all(f"| {method} " in text for method in timed)
    assert "in-place mix of 3 anchors" in text


def test_rates_are_of_each_method(check: gpu_check.Check) -> None:
    text, found = check.run("rates-transformers")
    assert [row["method"] for row in found] == ["base", "g2", "dexperts"]
    assert all(row["rates"][4] > 0 and row["switch_s"] < row["first_token_s"] for row in found)
    assert text.count("tokens/s at 4 rows") == 3
    assert check.run("generate")[1].keys() == {4}


def test_steps_of_fixed_shapes_draw_what_growing_caches_draw(check: gpu_check.Check) -> None:
    text, report = check.run("graphs")
    assert "they agree" in text
    assert all(point["greedy_equal"] == point["greedy_total"] for point in report["points"])


def test_a_sweep_in_one_batch_has_equal_texts(check: gpu_check.Check) -> None:
    text, found = check.run("sweep-transformers")
    assert found["equal_texts"] == {"greedy": 1.0, "sampled": 1.0}
    assert found["together_s"] < found["one_by_one_s"] and "100.0% of greedy texts equal" in text


def test_a_draft_of_near_experts_is_accepted(check: gpu_check.Check) -> None:
    text, found = check.run("speculation")
    assert [(line["alpha"], line["rows"]) for line in found] == [(0.5, 1), (0.5, 4), (1.0, 1), (1.0, 4)]
    assert all(line["acceptance"] > 0.9 and len(line["plain_s"]) == 3 for line in found)
    assert text.count("\n") == 7


def test_parts_may_share_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(check: gpu_check.Check, part: str) -> tuple[str, object]:
        if part == "generate":
            raise ValueError("it broke")
        return "fine\n", [1]

    monkeypatch.setattr(gpu_check.Check, "run", failing)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "models"))
    asked = [
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        "--shape",
        "tiny",
        "--one-process",
        "--only",
        "generate",
        "graphs",
    ]
    assert gpu_check.main(asked) == 1
    report = (tmp_path / "gpu-check.md").read_text()
    assert "## generate\n\nFAILED: ValueError: it broke" in report and "## graphs\n\nfine" in report


def test_a_part_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "run_child", lambda part, chosen: "it broke" if part == "generate" else None)
    (tmp_path / "rounding.md").write_text("fine\n")
    status = gpu_check.main(
        ["--device", "cpu", "--shape", "tiny", "--out", str(tmp_path), "--only", "rounding", "generate"]
    )
    assert status == 1
    report = (tmp_path / "gpu-check.md").read_text()
    assert "## rounding\n\nfine\n" in report and "## generate\n\nFAILED: it broke\n" in report


def test_a_child_that_ends_badly_says_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    parser_like = type("Chosen", (), {"out": tmp_path, "device": "cpu", "shape": "tiny", "timeout_s": 5})
    assert gpu_check.run_child("rounding", parser_like) == (
        f"exit status 1; its log {tmp_path / 'rounding.log'} ends: (empty)"
    )


def test_a_llamas_experts_are_adapters(tmp_path: Path) -> None:
    """Parity of the transformers engine with itself after rounding, through merged adapters."""
    check = gpu_check.Check(SHAPES["tiny-llama"], tmp_path, "cpu")
    assert check.checkpoints["expert"].source.endswith("expert-adapter")
    text, _ = check.run("rounding")
    assert "they agree" in text
