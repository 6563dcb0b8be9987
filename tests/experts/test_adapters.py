"""LoRA adapters, merged: against a merge by hand and PEFT's own."""

import json
import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, GPT2TokenizerFast, LlamaForCausalLM

from bench.experts.adapters import densified
from bench.experts.plan import given_checkpoints
from bench.schema import Suite, UserError
from bench.suite.checkpoints import Checkpoint, resolve
from bench.suite.loading import load_model

LLAMA: dict[str, Any] = dict(
    model_type="llama", hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
    tie_word_embeddings=False, attention_bias=True, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
RANKS, ALPHAS = {"k_proj": 2}, {"k_proj": 5}
GPT2: dict[str, Any] = dict(model_type="gpt2", n_embd=32, n_layer=2, n_head=2, n_positions=64)


def make_base(folder: Path, tokenizer: GPT2TokenizerFast, config: dict[str, Any]) -> Checkpoint:
    torch.manual_seed(0)
    options = dict(config)
    made = AutoConfig.for_model(options.pop("model_type"), vocab_size=len(tokenizer), **options)
    AutoModelForCausalLM.from_config(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return resolve(str(folder))


def dense(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return dict(load_model(AutoModelForCausalLM, checkpoint, dtype=torch.float32).named_parameters())


def save_adapter(base: Checkpoint, folder: Path, **options: Any) -> Any:
    """A PEFT adapter with random weights in every part.  Returns PEFT's model."""
    model = peft.get_peft_model(load_model(AutoModelForCausalLM, base), peft.LoraConfig(**options))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or "lora_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (LLAMA, dict(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"])),
        (LLAMA, dict(r=4, target_modules="all-linear", use_rslora=True)),
        (LLAMA, dict(r=4, target_modules=["k_proj", "up_proj"], rank_pattern=RANKS, alpha_pattern=ALPHAS)),
        (LLAMA, dict(r=2, target_modules=["q_proj"], bias="all", modules_to_save=["lm_head"])),
        (LLAMA, dict(r=2, target_modules=["q_proj", "embed_tokens"], bias="lora_only")),
        (GPT2, dict(r=4, target_modules=["c_attn", "c_proj"])),
    ],
    ids=["lora", "rslora", "patterns", "bias, whole head", "embedding", "conv1d"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_merge_is_pefts_own(
    tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast, config: dict[str, Any], options: dict[str, Any]
) -> None:
    base = make_base(tmp_path / "base", tiny_tokenizer, config)
    expected = dict(save_adapter(base, tmp_path / "adapter", **options).merge_and_unload().named_parameters())
    found = dense(densified(base, str(tmp_path / "adapter"), tmp_path))
    assert found.keys() == expected.keys()
    for name, parameter in found.items():
        torch.testing.assert_close(parameter, expected[name], atol=1e-6, rtol=0)
    before = dense(base)
    assert any(not torch.equal(parameter, before[name]) for name, parameter in found.items())


@pytest.mark.parametrize("rslora", [False, True])
def test_a_merge_by_hand(tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast, rslora: bool) -> None:
    """W + alpha / r B A, or alpha / sqrt(r): here 6 / 4 = 1.5 and 6 / 2 = 3."""
    base = make_base(tmp_path / "base", tiny_tokenizer, LLAMA)
    save_adapter(base, tmp_path / "a", r=4, lora_alpha=6, target_modules=["q_proj"], use_rslora=rslora)
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    found, before = dense(densified(base, str(tmp_path / "a"), tmp_path)), dense(base)
    for layer in range(2):
        module = f"model.layers.{layer}.self_attn.q_proj"
        a, b = (tensors[f"base_model.model.{module}.lora_{half}.weight"] for half in "AB")
        expected = before[f"{module}.weight"] + (3.0 if rslora else 1.5) * b @ a
        torch.testing.assert_close(found[f"{module}.weight"], expected, atol=1e-6, rtol=0)
    untouched = found.keys() - {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)}
    assert all(torch.equal(found[name], before[name]) for name in untouched)


def test_pefts_linear_combination_is_no_difference(tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast) -> None:
    """sqrt(|w|) goes onto A and sqrt(|w|) sign(w) onto B, or sign(w) onto both: (A1 + s A2), (B1 + s B2) is a product
    of sums.  With weights [1, -1] it holds cross terms, not B1 A1 - B2 A2."""
    base = make_base(tmp_path / "base", tiny_tokenizer, LLAMA)
    for seed, name in ((1, "one"), (2, "two")):
        torch.manual_seed(seed)
        model = peft.get_peft_model(
            load_model(AutoModelForCausalLM, base),
            peft.LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj"], init_lora_weights=False),
        )
        model.save_pretrained(tmp_path / name)
    combined = peft.PeftModel.from_pretrained(load_model(AutoModelForCausalLM, base), tmp_path / "one", "one")
    combined.load_adapter(tmp_path / "two", "two")
    combined.add_weighted_adapter(["one", "two"], [1.0, -1.0], "both", combination_type="linear")
    combined.set_adapter("both")
    theirs = dict(combined.merge_and_unload().named_parameters())
    one, two = (dense(densified(base, str(tmp_path / name), tmp_path)) for name in ("one", "two"))
    before, module = dense(base), "model.layers.0.self_attn.q_proj.weight"
    true = one[module] - two[module]
    with torch.no_grad():
        assert float((theirs[module] - before[module] - true).norm() / true.norm()) > 0.5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(use_dora=True), "it is DoRA"),
        (dict(peft_type="IA3"), "its kind is IA3"),
        (dict(init_lora_weights="pissa"), "it was started by pissa"),
        (dict(layer_replication=[[0, 1]]), "it uses layer_replication"),
        (dict(some_new_kind=True), "it uses some_new_kind"),
    ],
)
def test_what_is_not_exact_is_refused_by_name(
    tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast, changes: dict[str, Any], reason: str
) -> None:
    base = make_base(tmp_path / "base", tiny_tokenizer, LLAMA)
    save_adapter(base, tmp_path / "a", r=2, target_modules=["q_proj"])
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=f"adapter .*: {reason}"):
        densified(base, str(tmp_path / "a"), tmp_path)


def test_what_does_not_fit_or_changes_nothing_is_refused(tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast) -> None:
    base = make_base(tmp_path / "base", tiny_tokenizer, LLAMA)
    save_adapter(base, tmp_path / "a", r=2, target_modules=["q_proj"])
    wide = make_base(tmp_path / "wide", tiny_tokenizer, LLAMA | dict(hidden_size=64))
    with pytest.raises(UserError, match=r"q_proj.weight has shape \(32, 32\) and the base's \(64, 64\)"):
        densified(wide, str(tmp_path / "a"), tmp_path)
    other = make_base(tmp_path / "other", tiny_tokenizer, GPT2)
    with pytest.raises(UserError, match=r"the base has no module model\.layers\.0"):
        densified(other, str(tmp_path / "a"), tmp_path)
    weights = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({k: v * 0 if "lora_B" in k else v for k, v in tensors.items()}, weights)
    with pytest.raises(UserError, match="it changes nothing"):
        densified(base, str(tmp_path / "a"), tmp_path)
    save_file({k: v for k, v in tensors.items() if "lora_B" not in k}, weights)
    with pytest.raises(UserError, match="one half of the product"):
        densified(base, str(tmp_path / "a"), tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        densified(base, str(tmp_path / "a"), tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tied_embedding_is_not_changed_on_one_side(tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast) -> None:
    base = make_base(tmp_path / "base", tiny_tokenizer, LLAMA | dict(tie_word_embeddings=True))
    save_adapter(base, tmp_path / "a", r=2, target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(UserError, match="which the base uses as embedding and as head"):
        densified(base, str(tmp_path / "a"), tmp_path)


def test_a_suite_names_base_and_adapter_and_the_digest_covers_both(
    tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LERPBENCH_CACHE", str(tmp_path / "cache"))
    base = make_base(tmp_path / "base", tiny_tokenizer, LLAMA)
    save_adapter(base, tmp_path / "a", r=2, target_modules=["q_proj"])

    def found(of: str = "base") -> dict[str, Checkpoint]:
        given = {"expert": {"base": of, "adapter": str(tmp_path / "a")}, "base": str(tmp_path / "base")}
        return given_checkpoints(Suite(name="s", checkpoints=given, prompts={}, methods=()))  # type: ignore[arg-type]

    first = found()
    assert list(first) == ["expert", "base"] and first["base"] == base
    assert found()["expert"] == first["expert"]  # the second time it is there already
    weights = tmp_path / "a" / "adapter_model.safetensors"
    save_file({k: v * math.pi for k, v in load_file(weights).items()}, weights)
    second = found()["expert"].digest
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text() + " ")
    assert len({first["expert"].digest, second, found()["expert"].digest}) == 3
    with pytest.raises(UserError, match=r"checkpoints\.expert: base: no checkpoint 'bse'.*base"):
        found("bse")


def test_a_full_disk_is_one_line_and_leaves_no_half_checkpoint(
    tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base(tmp_path / "base", tiny_tokenizer, LLAMA)
    save_adapter(base, tmp_path / "a", r=2, target_modules=["q_proj"])

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(LlamaForCausalLM, "save_pretrained", full)
        with pytest.raises(UserError, match=r"cannot be written: .*No space left"):
            densified(base, str(tmp_path / "a"), tmp_path)
    assert densified(base, str(tmp_path / "a"), tmp_path).path.is_dir()
