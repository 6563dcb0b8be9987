"""The transformers engine against transformers itself, and the laws of mixing."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2TokenizerFast

from bench.engines.sampling import nucleus_mask, row_keys, uniforms
from bench.engines.stream import Stream
from bench.engines.transformers import NEVER, TransformersEngine
from bench.schema import Completion, Prefixed, Prompt, Recipe, Rule, Sampling, Steering
from bench.suite.checkpoints import resolve

TEXTS = ["The movie", "A story of the man", "The", "The actors are great and the film is long", "The movie"]
PROMPTS = [Prompt(set="s", row=row, text=text) for row, text in enumerate(TEXTS)]
GREEDY = Sampling(samples=1, max_new_tokens=12, temperature=0)


def weights(**coefficients: float) -> Recipe:
    return Recipe(space="weights", coefficients=coefficients)


def logits(filter_p: float | None = None, **coefficients: float) -> Recipe:
    return Recipe(space="logits", coefficients=coefficients, filter_p=filter_p)


@pytest.fixture(scope="module")
def engine(tiny_trio: dict[str, Path]) -> TransformersEngine:
    return TransformersEngine({name: resolve(str(f)) for name, f in tiny_trio.items()}, "float32", "cpu")


def load(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def mixed_reference(trio: dict[str, Path], recipe: Recipe) -> torch.nn.Module:
    """A weights mixture made plainly, tensor by tensor, in float64."""
    models = {name: load(trio[name]) for name in recipe.coefficients}
    result = load(trio["base"])
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            parameter.copy_(sum(c * models[m].get_parameter(name).double() for m, c in recipe.coefficients.items()))
    return result


def texts(completions: list[Completion]) -> list[str]:
    return [c.text for c in completions]


@pytest.mark.parametrize("recipe", [weights(base=1), weights(expert=1.5, antiexpert=-0.5), logits(base=1)])
def test_greedy_tokens_are_those_of_generate(
    engine: TransformersEngine, tiny_trio: dict[str, Path], tiny_tokenizer: GPT2TokenizerFast, recipe: Recipe
) -> None:
    reference = mixed_reference(tiny_trio, weights(**recipe.coefficients))
    found = engine.serve(recipe).generate(PROMPTS, GREEDY)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        ids = tiny_tokenizer(prompt.text, return_tensors="pt").input_ids
        out = reference.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        expected = tiny_tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert completion.text == expected


def test_token_logprobs_agree_with_a_direct_computation(
    engine: TransformersEngine, tiny_trio: dict[str, Path], tiny_tokenizer: GPT2TokenizerFast
) -> None:
    recipe = weights(base=1, expert=0.7, antiexpert=-0.7)
    reference = mixed_reference(tiny_trio, recipe)
    found = engine.serve(recipe).token_logprobs(TEXTS)
    for text, logprobs in zip(TEXTS, found, strict=True):
        ids = torch.tensor([0, *tiny_tokenizer(text)["input_ids"]])
        with torch.no_grad():
            direct = reference(ids[None]).logits[0].log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
        np.testing.assert_allclose(logprobs, direct.numpy(), atol=1e-4)


def test_dexperts_is_the_softmax_of_mixed_logits(
    engine: TransformersEngine, tiny_trio: dict[str, Path], tiny_tokenizer: GPT2TokenizerFast
) -> None:
    found = engine.serve(logits(base=1, expert=2, antiexpert=-2)).next_token_logprobs(TEXTS)
    for text, logprobs in zip(TEXTS, found, strict=True):
        ids = tiny_tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            z = {name: load(tiny_trio[name])(ids).logits[0, -1].double() for name in ("base", "expert", "antiexpert")}
        direct = (z["base"] + 2 * (z["expert"] - z["antiexpert"])).log_softmax(-1)
        np.testing.assert_allclose(logprobs, direct.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["base", "expert", "antiexpert"])
def test_spaces_agree_at_every_vertex(engine: TransformersEngine, name: str) -> None:
    sampling = Sampling(samples=4, max_new_tokens=8)
    in_weights = engine.serve(weights(**{name: 1})).generate(PROMPTS, sampling)
    assert texts(engine.serve(logits(**{name: 1})).generate(PROMPTS, sampling)) == texts(in_weights)


def test_equal_expert_and_antiexpert_cancel(tiny_trio: dict[str, Path]) -> None:
    same = {"base": tiny_trio["base"], "expert": tiny_trio["expert"], "antiexpert": tiny_trio["expert"]}
    engine = TransformersEngine({name: resolve(str(f)) for name, f in same.items()}, "float32", "cpu")
    base = engine.serve(weights(base=1)).next_token_logprobs(TEXTS)
    for recipe in (weights(base=1, expert=3, antiexpert=-3), logits(base=1, expert=3, antiexpert=-3)):
        np.testing.assert_allclose(engine.serve(recipe).next_token_logprobs(TEXTS), base, atol=1e-4)


def test_no_drift_after_many_changes(engine: TransformersEngine) -> None:
    recipe = weights(base=0.3, expert=0.9, antiexpert=-0.2)
    first = engine.serve(recipe).next_token_logprobs(TEXTS)
    for step in range(50):
        engine.serve(weights(base=1, expert=step / 7, antiexpert=-step / 11))
    assert (engine.serve(recipe).next_token_logprobs(TEXTS) == first).all()


def test_a_rerun_is_identical_and_a_seed_changes_it(engine: TransformersEngine) -> None:
    model = engine.serve(weights(base=1))
    once = model.generate(PROMPTS, Sampling(samples=5, max_new_tokens=8, seed=4))
    assert model.generate(PROMPTS, Sampling(samples=5, max_new_tokens=8, seed=4)) == once
    assert model.generate(PROMPTS, Sampling(samples=5, max_new_tokens=8, seed=5)) != once


@pytest.mark.parametrize("recipe", [weights(base=1), logits(base=1, expert=1, antiexpert=-1)])
@pytest.mark.parametrize("batch_rows", [1, 5, 13])
def test_batches_do_not_change_results(tiny_trio: dict[str, Path], recipe: Recipe, batch_rows: int) -> None:
    checkpoints = {name: resolve(str(f)) for name, f in tiny_trio.items()}
    sampling = Sampling(samples=5, max_new_tokens=10)
    wide = TransformersEngine(checkpoints, "float32", "cpu").serve(recipe).generate(PROMPTS, sampling)
    narrow = TransformersEngine(checkpoints, "float32", "cpu", batch_rows).serve(recipe).generate(PROMPTS, sampling)
    assert narrow == wide


def test_prompts_cut_between_batches_run_in_the_batches_of_all(tiny_trio: dict[str, Path]) -> None:
    """Six rows at most, three samples each: two prompts a batch, by length; the longest is alone."""
    engine = TransformersEngine({n: resolve(str(f)) for n, f in tiny_trio.items()}, "float32", "cpu", batch_rows=6)
    sampling = Sampling(samples=3, max_new_tokens=12)
    batches = engine.batches(PROMPTS, sampling)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert [len(TEXTS[i].split()) for batch in batches for i in batch] == [1, 2, 2, 5, 9]
    tail = [i for batch in batches[1:] for i in batch]
    cut = [PROMPTS[i] for i in tail]
    assert [[tail[i] for i in batch] for batch in engine.batches(cut, sampling)] == batches[1:]


def test_repeated_texts_in_other_rows_draw_other_samples(engine: TransformersEngine) -> None:
    drawn = engine.serve(weights(base=1)).generate(PROMPTS, Sampling(samples=5, max_new_tokens=8))
    assert texts(drawn[:5]) != texts(drawn[20:])  # rows 0 and 4 hold the same text


def test_the_points_of_a_sweep_share_their_noise(engine: TransformersEngine) -> None:
    """A tiny step in weights changes few completions: the draws are the same."""
    sampling = Sampling(samples=20, max_new_tokens=4)
    one = texts(engine.serve(weights(base=1)).generate(PROMPTS, sampling))
    two = texts(engine.serve(weights(base=0.999, expert=0.001)).generate(PROMPTS, sampling))
    assert sum(a == b for a, b in zip(one, two, strict=True)) > 0.9 * len(one)


def test_a_completion_stops_at_the_end_of_text(tiny_trio: dict[str, Path], tmp_path: Path) -> None:
    """With the end token made very likely, completions end early and say so."""
    folder = tmp_path / "ending"
    model = AutoModelForCausalLM.from_pretrained(tiny_trio["base"])
    with torch.no_grad():
        model.transformer.wte.weight[0] = 0.3 * model.transformer.ln_f.weight + 0.1
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((tiny_trio["base"] / file).read_bytes())
    engine = TransformersEngine({"base": resolve(str(folder))}, "float32", "cpu")
    drawn = engine.serve(weights(base=1)).generate(PROMPTS, Sampling(samples=20, max_new_tokens=10))
    stopped = [c for c in drawn if c.finish_reason == "stop"]
    running = [c for c in drawn if c.finish_reason == "length"]
    assert stopped and running
    assert all(c.n_tokens < 10 for c in stopped) and all(c.n_tokens == 10 for c in running)
    assert not any("<|endoftext|>" in c.text for c in drawn)


def test_filter_p_draws_from_the_base_nucleus_alone(
    engine: TransformersEngine, tiny_trio: dict[str, Path], tiny_tokenizer: GPT2TokenizerFast
) -> None:
    sampling = Sampling(samples=200, max_new_tokens=1)
    drawn = engine.serve(logits(0.3, base=1, expert=4, antiexpert=-4)).generate(PROMPTS[:1], sampling)
    ids = tiny_tokenizer(TEXTS[0], return_tensors="pt").input_ids
    with torch.no_grad():
        nucleus = nucleus_mask(load(tiny_trio["base"])(ids).logits[:, -1], 0.3)[0].nonzero()[:, 0].tolist()
    allowed = {tiny_tokenizer.decode([token], skip_special_tokens=True) for token in nucleus}
    assert {c.text for c in drawn} <= allowed


def test_sampled_tokens_follow_the_served_distribution(engine: TransformersEngine) -> None:
    """The first sampled token is the inverse CDF of the engine's own distribution at the row's uniform number."""
    model = engine.serve(weights(base=1))
    sampling = Sampling(samples=50, max_new_tokens=1, top_p=1.0, seed=9)
    cumulative = np.exp(model.next_token_logprobs(TEXTS[:1]))[0].cumsum()
    expected = np.searchsorted(cumulative, uniforms(row_keys(PROMPTS[:1], 50, 9), 0, 0).numpy(), side="right")
    words = [engine.tokenizer.decode([int(token)], skip_special_tokens=True) for token in expected]
    assert texts(model.generate(PROMPTS[:1], sampling)) == words


def test_bfloat16_records_the_share_of_the_update_that_survives(tiny_trio: dict[str, Path]) -> None:
    checkpoints = {name: resolve(str(f)) for name, f in tiny_trio.items()}
    exact = TransformersEngine(checkpoints, "float32", "cpu")
    exact.serve(weights(base=0.5, expert=0.5))
    assert exact.survived_update() == pytest.approx(1)
    rounded = TransformersEngine(checkpoints, "bfloat16", "cpu")
    rounded.serve(weights(base=0.5, expert=0.5))
    share = rounded.survived_update()
    assert share is not None and 0.9 < share < 1.1 and share != 1


def test_a_rule_is_served_tensor_by_tensor(engine: TransformersEngine, tiny_trio: dict[str, Path]) -> None:
    """TIES of one expert at density 1 is task arithmetic; at density 0.5 half of every tensor's update is left."""

    def ties(density: float) -> Recipe:
        rule = Rule(name="ties", params={"density": density, "trim": "tensor"})
        return Recipe(space="weights", coefficients={"base": 1, "expert": 1}, rule=rule)

    whole = engine.serve(ties(1.0)).next_token_logprobs(TEXTS)
    np.testing.assert_allclose(whole, engine.serve(weights(expert=1)).next_token_logprobs(TEXTS), atol=1e-4)
    served = dict(engine.serve(ties(0.5)).members[0][1].named_parameters())
    base, expert = load(tiny_trio["base"]), load(tiny_trio["expert"])
    for name, parameter in expert.named_parameters():
        tau = parameter - base.get_parameter(name)
        kept = tau.abs() >= tau.abs().flatten().sort(descending=True).values[parameter.numel() // 2 - 1]
        torch.testing.assert_close(served[name] - base.get_parameter(name), tau * kept, atol=1e-6, rtol=0)
    assert engine.survived_update() == pytest.approx(1)


def test_a_seeded_rule_is_served_alike_again(engine: TransformersEngine) -> None:
    def dare(seed: int) -> Recipe:
        both = {"base": 1.0, "expert": 1.0, "antiexpert": -1.0}
        rule = Rule(name="dare", params={"density": 0.5, "consensus": "sum"}, seed=seed)
        return Recipe(space="weights", coefficients=both, rule=rule)

    once = engine.serve(dare(0)).next_token_logprobs(TEXTS)
    assert np.abs(engine.serve(dare(1)).next_token_logprobs(TEXTS) - once).max() > 1e-3
    assert (engine.serve(dare(0)).next_token_logprobs(TEXTS) == once).all()


# ------------------------------------------------------------------------------------------ other spaces


def direct(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """Next-token logits (V,) float64 after ids (1, T)."""
    with torch.no_grad():
        found: torch.Tensor = load(folder)(ids).logits[0, -1].double()
    return found


def cfg(alpha: float, prefix: str = "The film is") -> Recipe:
    prefixes = {"prompted": Prefixed(checkpoint="base", text=prefix)}
    return Recipe(space="logits", coefficients={"base": 1 - alpha, "prompted": alpha}, prefixes=prefixes)


def test_probs_are_a_weighted_mean_of_the_members_probabilities(
    engine: TransformersEngine, tiny_trio: dict[str, Path], tiny_tokenizer: GPT2TokenizerFast
) -> None:
    recipe = Recipe(space="probs", coefficients={"expert": 0.3, "antiexpert": 0.7})
    model = engine.serve(recipe)
    found = model.next_token_logprobs(TEXTS)
    for text, logprobs in zip(TEXTS, found, strict=True):
        ids = tiny_tokenizer(text, return_tensors="pt").input_ids
        p = [direct(tiny_trio[name], ids).softmax(-1) for name in ("expert", "antiexpert")]
        np.testing.assert_allclose(np.exp(logprobs), (0.3 * p[0] + 0.7 * p[1]).numpy(), atol=1e-6)
    per_token = model.token_logprobs(TEXTS)
    single = [engine.serve(weights(**{name: 1})).token_logprobs(TEXTS) for name in ("expert", "antiexpert")]
    for mixed, plus, minus in zip(per_token, *single, strict=True):
        np.testing.assert_allclose(np.exp(mixed), 0.3 * np.exp(plus) + 0.7 * np.exp(minus), atol=1e-5)


def test_probs_at_a_vertex_are_the_member(engine: TransformersEngine) -> None:
    sampling = Sampling(samples=4, max_new_tokens=8)
    alone = engine.serve(weights(expert=1)).generate(PROMPTS, sampling)
    assert engine.serve(Recipe(space="probs", coefficients={"expert": 1})).generate(PROMPTS, sampling) == alone


def test_guidance_mixes_the_base_with_itself_behind_a_prefix(
    engine: TransformersEngine, tiny_trio: dict[str, Path], tiny_tokenizer: GPT2TokenizerFast
) -> None:
    model = engine.serve(cfg(1.5))
    found, scored = model.next_token_logprobs(TEXTS), model.token_logprobs(TEXTS)
    prefix = tiny_tokenizer("The film is")["input_ids"]
    for text, logprobs, tokens in zip(TEXTS, found, scored, strict=True):
        ids = tiny_tokenizer(text)["input_ids"]
        z, y = (direct(tiny_trio["base"], torch.tensor([row])) for row in (ids, prefix + ids))
        np.testing.assert_allclose(logprobs, (1.5 * y - 0.5 * z).log_softmax(-1).numpy(), atol=1e-4)
        z, y = (direct(tiny_trio["base"], torch.tensor([[0, *row, *ids[:-1]]])) for row in ([], prefix))
        assert tokens[-1] == pytest.approx(float((1.5 * y - 0.5 * z).log_softmax(-1)[ids[-1]]), abs=1e-4)
    assert model.context_length() == 64 - len(prefix)


@torch.inference_mode()
def test_at_most_a_fifth_of_the_rows_that_are_decoded_have_ended(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that end at different steps: where each ends is known by which token was taken for the end."""
    stepped: list[int] = []
    step = Stream.step
    monkeypatch.setattr(Stream, "step", lambda self, tokens: stepped.append(len(tokens)) or step(self, tokens))
    model = engine.serve(weights(base=1))
    keys = row_keys(PROMPTS, 40, seed=0)
    sampling = Sampling(samples=40, max_new_tokens=20, temperature=0.4)
    free = model._decode([engine.token_ids(text) for text in TEXTS], keys, sampling, end=NEVER)
    end = Counter(token for tokens, _ in free for token in tokens).most_common(1)[0][0]
    stepped.clear()
    rows = model._decode([engine.token_ids(text) for text in TEXTS], keys, sampling, end=end)
    assert [tokens for tokens, _ in rows] == [
        tokens[: tokens.index(end)] if end in tokens else tokens for tokens, _ in free
    ]
    going = [sum(len(tokens) > i for tokens, _ in rows) for i in range(20)]
    assert going[0] > 2 * going[-2]  # many end on the way
    for still, decoded in zip(going, stepped, strict=False):
        assert still <= decoded <= max(1, still / 0.8)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(samples=3, max_new_tokens=8, top_p=0.8)])
def test_guidance_at_one_writes_what_the_base_writes_behind_the_prefix(
    engine: TransformersEngine, tiny_tokenizer: GPT2TokenizerFast, sampling: Sampling
) -> None:
    """The prefix's tokens and the prompt's, one after the other; rows and sets name the noise, so it is shared."""
    joined = [Prompt(set=p.set, row=p.row, text="The film is" + p.text) for p in PROMPTS]
    model = engine.serve(weights(base=1))
    split = [tiny_tokenizer("The film is")["input_ids"] + tiny_tokenizer(t)["input_ids"] for t in TEXTS]
    assert split == [tiny_tokenizer(p.text)["input_ids"] for p in joined]
    plain = texts(model.generate(joined, sampling))
    assert texts(engine.serve(cfg(1)).generate(PROMPTS, sampling)) == plain
    assert texts(engine.serve(cfg(0)).generate(PROMPTS, sampling)) != plain


def test_every_member_keeps_its_own_cache_over_many_steps(
    engine: TransformersEngine, tiny_tokenizer: GPT2TokenizerFast, tiny_trio: dict[str, Path]
) -> None:
    """Greedy guidance, prompts of unequal lengths in one batch, against a loop that recomputes everything."""
    found = engine.serve(cfg(2)).generate(PROMPTS, GREEDY)
    base, prefix = load(tiny_trio["base"]), tiny_tokenizer("The film is")["input_ids"]
    for text, completion in zip(TEXTS, found, strict=True):
        ids = tiny_tokenizer(text)["input_ids"]
        grown = list(ids)
        for _ in range(12):
            with torch.no_grad():
                z = base(torch.tensor([grown])).logits[0, -1].double()
                y = base(torch.tensor([prefix + grown])).logits[0, -1].double()
            grown.append(int((2 * y - z).argmax()))
            if grown[-1] == 0:
                break
        assert completion.text == tiny_tokenizer.decode(grown[len(ids) :], skip_special_tokens=True)


def test_filter_p_narrows_the_greedy_choice_too(
    engine: TransformersEngine, tiny_trio: dict[str, Path], tiny_tokenizer: GPT2TokenizerFast
) -> None:
    """As in the DExperts release, where the base's other tokens get no logit: at 1e-9 its likeliest alone is left."""
    mixture = {"base": 1.0, "expert": 9.0, "antiexpert": -9.0}
    free, narrowed = (texts(engine.serve(logits(p, **mixture)).generate(PROMPTS, GREEDY)) for p in (None, 1e-9))
    assert narrowed == texts(engine.serve(logits(base=1)).generate(PROMPTS, GREEDY))
    assert narrowed != free


@pytest.mark.parametrize("temperature", [0, 1])
def test_contrastive_candidates_are_the_experts(
    engine: TransformersEngine, tiny_trio: dict[str, Path], tiny_tokenizer: GPT2TokenizerFast, temperature: float
) -> None:
    recipe = Recipe(space="logits", coefficients={"expert": 6, "antiexpert": -5}, plausible=0.3)
    sampling = Sampling(samples=200, max_new_tokens=1, top_p=1, temperature=temperature)
    drawn = {c.text for c in engine.serve(recipe).generate(PROMPTS[:1], sampling)}
    p = direct(tiny_trio["expert"], tiny_tokenizer(TEXTS[0], return_tensors="pt").input_ids).softmax(-1)
    head = {tiny_tokenizer.decode([int(t)], skip_special_tokens=True) for t in (p >= 0.3 * p.max()).nonzero()}
    assert drawn <= head
    assert 1 < len(head) < 30  # the mask is neither empty nor idle


@pytest.mark.parametrize("recipe", [cfg(1.5), Recipe(space="probs", coefficients={"expert": 0.5, "antiexpert": 0.5})])
def test_tokens_are_drawn_from_the_mixed_distribution(engine: TransformersEngine, recipe: Recipe) -> None:
    """The first token is the inverse CDF of the mixture's own distribution at the row's uniform number."""
    model = engine.serve(recipe)
    cumulative = np.exp(model.next_token_logprobs(TEXTS[:1]).astype(np.float64))[0].cumsum()
    expected = np.searchsorted(cumulative, uniforms(row_keys(PROMPTS[:1], 50, 9), 0, 0).numpy(), side="right")
    words = [engine.tokenizer.decode([int(token)], skip_special_tokens=True) for token in expected]
    drawn = texts(model.generate(PROMPTS[:1], Sampling(samples=50, max_new_tokens=1, top_p=1.0, seed=9)))
    assert sum(a == b for a, b in zip(drawn, words, strict=True)) >= 49  # one may lie at a rounded edge


def steered(strength: float, layer: int = 0) -> Recipe:
    steering = Steering(layer=layer, add="The film is good.", subtract="The movie is bad")
    return Recipe(space="activations", coefficients={"base": 1, "steering": strength}, steering=steering)


def test_activation_addition_in_the_last_layer_is_a_shift_before_the_norm(
    engine: TransformersEngine, tiny_trio: dict[str, Path], tiny_tokenizer: GPT2TokenizerFast
) -> None:
    found = engine.serve(steered(3, layer=1)).next_token_logprobs(TEXTS[:1])[0]
    body = load(tiny_trio["base"]).transformer
    outputs: list[torch.Tensor] = []
    body.h[1].register_forward_hook(lambda _, __, out: outputs.append(out[0] if isinstance(out, tuple) else out))
    means = []
    with torch.no_grad():
        for text in ("The film is good.", "The movie is bad"):
            body(torch.tensor([[0, *tiny_tokenizer(text)["input_ids"]]]))
            means.append(outputs.pop()[0, 1:].mean(0))
        body(tiny_tokenizer(TEXTS[0], return_tensors="pt").input_ids)
        hidden = body.ln_f(outputs.pop()[0, -1] + 3 * (means[0] - means[1]))
        expected = (body.wte.weight @ hidden).log_softmax(-1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_steering_ends_where_the_next_mixture_is_served(engine: TransformersEngine) -> None:
    base = engine.serve(logits(base=1)).next_token_logprobs(TEXTS)
    assert np.abs(engine.serve(steered(2)).next_token_logprobs(TEXTS) - base).max() > 1e-2
    np.testing.assert_array_equal(engine.serve(logits(base=1)).next_token_logprobs(TEXTS), base)
    np.testing.assert_array_equal(engine.serve(steered(0)).next_token_logprobs(TEXTS), base)


def test_what_an_engine_keeps_of_members_is_what_a_new_one_finds(tiny_trio: dict[str, Path]) -> None:
    """A sweep asks for the same texts at each point; the base is steered in between."""

    def opened() -> TransformersEngine:
        return TransformersEngine({name: resolve(str(f)) for name, f in tiny_trio.items()}, "float32", "cpu")

    steering = Steering(layer=1, add="The film is good.", subtract="The movie is bad")
    steered = Recipe(space="activations", coefficients={"base": 1, "steering": 2}, steering=steering)
    kept = opened()
    for recipe in (logits(base=1, expert=0.5), logits(base=1, expert=1.5), steered, logits(base=1, expert=0.5)):
        found = kept.serve(recipe).token_logprobs(TEXTS)
        for one, other in zip(found, opened().serve(recipe).token_logprobs(TEXTS), strict=True):
            np.testing.assert_array_equal(one, other)
