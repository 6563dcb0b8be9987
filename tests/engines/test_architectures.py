"""Both engines serve any decoder: tiny random models of several architectures against plain transformers.

No module of ours names any of these architectures but GPT-2.  $LERPBENCH_ARCHITECTURES, model types between blanks,
adds some that are not named here either.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2TokenizerFast

from bench.engines.transformers import TransformersEngine
from bench.engines.vllm import VllmEngine
from bench.engines.vllm_support import VllmSettings, why_not
from bench.schema import Prompt, Recipe, Sampling, UserError
from bench.suite.checkpoints import resolve
from tests.engines.reference import Reference, load

os.environ.setdefault("OMP_NUM_THREADS", "1")

TEXTS = ["The movie was", "A story of a man in the city, and the actors are great. The film is bad and long."]
PROMPTS = [Prompt(set="tiny", row=i, text=text) for i, text in enumerate(TEXTS)]
GREEDY = Sampling(samples=1, max_new_tokens=8, temperature=0)
TINY = dict(
    hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
    initializer_range=0.2, bos_token_id=0, eos_token_id=0, pad_token_id=0,
)  # fmt: skip
GROUPED = TINY | dict(num_key_value_heads=1)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": dict(model_type="gpt2", n_positions=64, n_embd=64, n_layer=2, n_head=2, initializer_range=0.1),
    "llama, tied": dict(model_type="llama", tie_word_embeddings=True, **GROUPED),
    "llama, untied": dict(model_type="llama", tie_word_embeddings=False, **TINY),
    "qwen3": dict(model_type="qwen3", head_dim=32, tie_word_embeddings=True, **GROUPED),
    "mistral": dict(model_type="mistral", sliding_window=None, **GROUPED),
    "gpt_neox": dict(model_type="gpt_neox", rotary_pct=0.5, **TINY),
    "olmo2": dict(model_type="olmo2", **GROUPED),
    "gemma2": dict(
        model_type="gemma2", head_dim=32, query_pre_attn_scalar=32, attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0, **GROUPED,
    ),
    "cohere": dict(model_type="cohere", logit_scale=0.25, **GROUPED),
    "granite": dict(model_type="granite", logits_scaling=4.0, **GROUPED),
}  # fmt: skip
ARCHITECTURES |= {
    name: dict(model_type=name, **GROUPED) for name in os.environ.get("LERPBENCH_ARCHITECTURES", "").split()
}
WITHOUT_POSITIONS: dict[str, dict[str, Any]] = {  # models that read them off the mask
    "bloom": dict(
        model_type="bloom", hidden_size=64, n_layer=2, n_head=2, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
        pad_token_id=0,
    ),
    "mpt": dict(model_type="mpt", d_model=64, n_layers=2, n_heads=2, max_seq_len=64, initializer_range=0.2),
}  # fmt: skip
WEIGHTS = Recipe(space="weights", coefficients={"base": 1, "expert": 0.7, "antiexpert": -0.7})
LOGITS = Recipe(space="logits", coefficients={"base": 1, "expert": 0.7, "antiexpert": -0.7})
VERTEX = Recipe(space="weights", coefficients={"expert": 1})


def make_trio(root: Path, tokenizer: GPT2TokenizerFast, base: Mapping[str, Any], expert: Mapping[str, Any]) -> None:
    """base, expert and antiexpert: random models of these configs; steps from the base where the config is the same."""
    torch.manual_seed(0)
    first = None
    for name, wanted in (("base", base), ("expert", expert), ("antiexpert", expert)):
        options = dict(wanted)
        config = AutoConfig.for_model(options.pop("model_type"), vocab_size=len(tokenizer), **options)
        model = AutoModelForCausalLM.from_config(config)
        if first is None:
            first = model
        elif wanted is base:
            model.load_state_dict(first.state_dict())
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.03)
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)


Folders = Callable[[str], dict[str, Path]]


@pytest.fixture(scope="session")
def trio_of(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: GPT2TokenizerFast) -> Folders:
    """The folders of an architecture's trio, made when first asked for."""
    made: dict[str, Path] = {}

    def folders(architecture: str) -> dict[str, Path]:
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp("trio")
            config = (ARCHITECTURES | WITHOUT_POSITIONS)[architecture]
            make_trio(made[architecture], tiny_tokenizer, config, config)
        return {name: made[architecture] / name for name in ("base", "expert", "antiexpert")}

    return folders


@pytest.fixture(scope="session")
def small_experts(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: GPT2TokenizerFast) -> dict[str, Path]:
    """A base, and experts of half its width and half its layers that share its vocabulary."""
    root = tmp_path_factory.mktemp("unequal")
    base = dict(ARCHITECTURES["llama, untied"], hidden_size=128, num_attention_heads=4, num_hidden_layers=4)
    make_trio(root, tiny_tokenizer, base, ARCHITECTURES["llama, untied"])
    return {name: root / name for name in ("base", "expert", "antiexpert")}


def open_transformers(folders: Mapping[str, Path], static: bool = False) -> Any:
    checkpoints = {name: resolve(str(folder)) for name, folder in folders.items()}
    return TransformersEngine(checkpoints, "float32", "cpu", static=static)


def open_vllm(folders: Mapping[str, Path]) -> Any:
    settings = VllmSettings(max_num_seqs=16, eager=True)
    return VllmEngine({name: resolve(str(folder)) for name, folder in folders.items()}, "float32", "cpu", settings)


ENGINES = [
    pytest.param(open_transformers, id="transformers"),
    pytest.param(
        open_vllm,
        id="vllm",
        marks=[pytest.mark.vllm, pytest.mark.skipif(why_not("cpu") is not None, reason="vLLM's CPU build cannot run")],
    ),
]


@pytest.fixture(params=ENGINES)
def opener(request: pytest.FixtureRequest) -> Iterator[Callable[[Mapping[str, Path]], Any]]:
    opened: list[Any] = []

    def keep(folders: Mapping[str, Path]) -> Any:
        opened.append(request.param(folders))
        return opened[-1]

    yield keep
    for engine in opened:
        engine.close()


def require_parity(engine: Any, plain: Mapping[str, Any], recipe: Recipe) -> None:
    """Greedy tokens equal, log-probabilities within 1e-4."""
    model, reference = engine.serve(recipe), Reference(plain, recipe)
    expected = [reference.greedy(model.token_ids(text), GREEDY.max_new_tokens, model.end) for text in TEXTS]
    assert [c.text for c in model.generate(PROMPTS, GREEDY)] == engine.tokenizer.batch_decode(expected)
    for text, found in zip(TEXTS, model.token_logprobs(TEXTS), strict=True):
        assert np.abs(found - reference.token_logprobs(model.token_ids(text), model.end)).max() < 1e-4
    after = reference.logits(model.token_ids(TEXTS[0]))[-1].log_softmax(dim=-1).numpy()
    assert np.abs(model.next_token_logprobs(TEXTS[:1])[0] - after).max() < 1e-4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_both_spaces_agree_with_transformers(
    opener: Callable[[Mapping[str, Path]], Any], trio_of: Folders, architecture: str
) -> None:
    folders = trio_of(architecture)
    engine, plain = opener(folders), {name: load(folder) for name, folder in folders.items()}
    for recipe in (WEIGHTS, VERTEX):
        require_parity(engine, plain, recipe)
    before = engine.serve(WEIGHTS).token_logprobs(TEXTS)
    for step in range(20):
        engine.serve(Recipe(space="weights", coefficients={"base": 1, "expert": step / 7, "antiexpert": -step / 11}))
    for a, b in zip(before, engine.serve(WEIGHTS).token_logprobs(TEXTS), strict=True):
        assert np.array_equal(a, b)
    require_parity(engine, plain, LOGITS)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *WITHOUT_POSITIONS])
def test_completions_of_one_prompt_are_those_of_many(trio_of: Folders, architecture: str) -> None:
    """Greedy, so that they are equal: rows that share their prompt's keys, where the model lets them, and one that does
    not.
    """
    engine = open_transformers(trio_of(architecture))
    served = engine.serve(LOGITS)
    alone = [c.text for c in served.generate(PROMPTS, GREEDY)]
    several = [c.text for c in served.generate(PROMPTS, GREEDY.model_copy(update={"samples": 6}))]
    assert several == [text for text in alone for _ in range(6)]
    fixed = open_transformers(trio_of(architecture), static=True).serve(LOGITS)
    assert [c.text for c in fixed.generate(PROMPTS, GREEDY)] == alone
    assert all(member.plain for member in served.members) is (architecture not in ("gemma2", *WITHOUT_POSITIONS))


def test_a_model_that_sees_a_window_shares_no_prompts(tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast) -> None:
    windowed = dict(model_type="mistral", sliding_window=4, **GROUPED)
    make_trio(tmp_path, tiny_tokenizer, windowed, windowed)
    engine = open_transformers({"base": tmp_path / "base"})
    served = engine.serve(Recipe(space="weights", coefficients={"base": 1}))
    assert not served.members[0].plain


@pytest.mark.parametrize("architecture", WITHOUT_POSITIONS)
def test_a_model_that_takes_no_positions_agrees(trio_of: Folders, architecture: str) -> None:
    """In the transformers engine alone: vLLM's BLOOM has another GELU than transformers', which shows at 5e-4."""
    folders = trio_of(architecture)
    engine, plain = open_transformers(folders), {name: load(folder) for name, folder in folders.items()}
    for recipe in (WEIGHTS, LOGITS):
        require_parity(engine, plain, recipe)


def test_small_experts_steer_a_large_base(
    opener: Callable[[Mapping[str, Path]], Any], small_experts: dict[str, Path]
) -> None:
    plain = {name: load(folder) for name, folder in small_experts.items()}
    engine = opener(small_experts)
    require_parity(engine, plain, LOGITS)
    require_parity(engine, plain, Recipe(space="weights", coefficients={"base": 1}))
    require_parity(engine, plain, Recipe(space="weights", coefficients={"expert": 0.5, "antiexpert": 0.5}))


@pytest.mark.vllm
@pytest.mark.skipif(why_not("cpu") is not None, reason="vLLM's CPU build cannot run")
def test_two_processes_share_an_engines_weights(trio_of: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensor parallelism: each process takes its part of a mixture through vLLM's own loaders, in both spaces."""
    monkeypatch.setenv("LERPBENCH_VLLM_TENSOR_PARALLEL", "2")
    monkeypatch.setenv("LERPBENCH_VLLM_MAX_NUM_SEQS", "16")
    folders = trio_of("llama, untied")
    plain = {name: load(folder) for name, folder in folders.items()}
    engine = VllmEngine({name: resolve(str(folder)) for name, folder in folders.items()}, "float32", "cpu")
    assert engine.arguments("weights", ["base"])["tensor_parallel_size"] == 2
    try:
        for recipe in (WEIGHTS, VERTEX, LOGITS):
            require_parity(engine, plain, recipe)
        assert engine.serve(WEIGHTS) and engine.survived_update() == pytest.approx(1)
    finally:
        engine.close()


def test_what_cannot_be_decoded_behind_padding_is_refused(tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast) -> None:
    """A state-space model reads padding into its state."""
    mamba = dict(model_type="mamba", hidden_size=64, num_hidden_layers=2, state_size=8)
    make_trio(tmp_path, tiny_tokenizer, mamba, mamba)
    engine = open_transformers({"base": tmp_path / "base"})
    with pytest.raises(
        UserError, match=r"mamba cannot be decoded row by row with a cache \(padding changes its answers"
    ):
        engine.serve(Recipe(space="weights", coefficients={"base": 1}))
