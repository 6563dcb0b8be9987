"""Speculative ensembles: exactly the ensemble's distribution, whatever drafts."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from scipy import stats

from bench.engines.drafting import MOST, best_k, ensemble_steps, times_as_quick
from bench.engines.sampling import from_step, inverse_cdf, nucleus, row_keys, uniforms
from bench.engines.speculative import BEGINNINGS, SpeculativeModel, judge
from bench.engines.transformers import TransformersEngine
from bench.schema import Draft, Prompt, Recipe, Sampling
from bench.serving import NotFiniteError
from bench.suite.checkpoints import resolve

TEXTS = ["The movie", "A story of the man", "The", "The actors are great and the film is long", "The movie"]
PROMPTS = [Prompt(set="s", row=row, text=text) for row, text in enumerate(TEXTS)]
G2 = {"base": 1.0, "expert": 0.5, "antiexpert": -0.5}


def speculative(k: int | Literal["auto"] = 4, draft: dict[str, float] = G2, **mixed: float) -> Recipe:
    return Recipe(space="logits", coefficients=mixed or G2, draft=Draft(coefficients=draft, k=k))


def plain(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"draft": None})


def opened(trio: dict[str, Path], static: bool) -> TransformersEngine:
    return TransformersEngine({name: resolve(str(f)) for name, f in trio.items()}, "float32", "cpu", static=static)


@pytest.fixture(scope="module", params=[False, True], ids=["growing caches", "fixed places"])
def engine(request: pytest.FixtureRequest, tiny_trio: dict[str, Path]) -> TransformersEngine:
    return opened(tiny_trio, request.param)


def served(engine: TransformersEngine, recipe: Recipe) -> SpeculativeModel:
    model = engine.serve(recipe)
    assert isinstance(model, SpeculativeModel)
    return model


def random_pair(seed: int, apart: float, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Ensemble and draft over nine tokens at two steps, (2, 9) each."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(2, 9, generator=generator) * 1.5
    other = base + apart * torch.randn(2, 9, generator=generator)
    return nucleus(base, top_p), nucleus(other, top_p)


@pytest.mark.parametrize(("apart", "top_p"), [(0.1, 0.9), (1.0, 0.9), (3.0, 0.6), (1.0, 1.0)])
def test_two_steps_follow_the_ensemble_over_200000_draws(apart: float, top_p: float) -> None:
    """Step 0 follows p0 and, where its draft stood, step 1 follows p1, by chi-square; acceptance is the overlap."""
    n = 200_000
    p, q = random_pair(3, apart, top_p)
    keys = row_keys([Prompt(set="chi", row=0, text="")], n, seed=5)
    first = torch.zeros_like(keys)
    drafts = []
    for i in range(2):
        weights = q[[i]].repeat(n, 1)
        drafts.append(inverse_cdf(weights, uniforms(keys, i, 0)))
    ensemble, draft = p[[0, 1, 1]].expand(n, 3, 9), q.expand(n, 2, 9)
    accepted, replacement = judge(ensemble, draft, torch.stack(drafts, 1), torch.full_like(keys, 2), keys, first)
    steps = [torch.where(accepted > 0, drafts[0], replacement),
             torch.where(accepted > 1, drafts[1], replacement)[accepted > 0]]  # fmt: skip
    for drawn, expected in zip(steps, p, strict=True):
        counts = torch.bincount(drawn, minlength=9).double()
        inside = expected > 0
        assert counts[~inside].sum() == 0
        exact = expected[inside].double()
        assert stats.chisquare(counts[inside], exact / exact.sum() * counts.sum()).pvalue > 1e-3
    overlap = float(torch.minimum(p[0], q[0]).sum())
    assert float((accepted > 0).double().mean()) == pytest.approx(overlap, abs=5 * (0.25 / n) ** 0.5)


def test_a_rejected_token_is_replaced_from_the_positive_part_by_hand() -> None:
    """p = (0.5, 0.5, 0), q = (0, 0.5, 0.5): token 1 always stands, token 2 never, and token 0 takes its place."""
    p, q = torch.tensor([[[0.5, 0.5, 0.0]]]), torch.tensor([[[0.0, 0.5, 0.5]]])
    keys = row_keys(PROMPTS[:1], 100, seed=0)
    ones, zeros = torch.ones_like(keys), torch.zeros_like(keys)
    for token, expected in ((1, 1), (2, 0)):
        tokens = torch.full((100, 1), token)
        accepted, replacement = judge(p.expand(100, 2, 3), q.expand(100, 1, 3), tokens, ones, keys, zeros)
        assert (accepted == expected).all()
        assert expected or (replacement == 0).all()


def test_drafts_beyond_a_rows_room_are_not_judged() -> None:
    p = torch.full((4, 4, 2), 0.5)
    keys = row_keys(PROMPTS[:4], 1, seed=0)
    room = torch.tensor([0, 1, 2, 3])
    accepted, _ = judge(p, p[:, :3], torch.zeros(4, 3, dtype=torch.int64), room, keys, torch.zeros_like(keys))
    assert accepted.tolist() == [0, 1, 2, 3]


def test_a_key_from_a_step_on_has_the_same_numbers() -> None:
    keys = row_keys(PROMPTS, 3, seed=0)
    assert (uniforms(from_step(keys, torch.full_like(keys, 7)), 0, 2) == uniforms(keys, 7, 2)).all()


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("member", ["base", "expert"])
def test_a_draft_that_is_the_target_is_always_accepted_and_draws_the_same(
    engine: TransformersEngine, member: str, k: int
) -> None:
    """An ensemble of one checkpoint with weight 1, beside a faint one, and that checkpoint as its draft."""
    recipe = speculative(k, {member: 1}, **{member: 1, "other": 1e-9})
    sampling = Sampling(samples=6, max_new_tokens=13, top_p=1)
    model = served(engine, recipe)
    found = model.generate(PROMPTS, sampling)
    assert model.acceptance == 1
    assert found == engine.serve(plain(recipe)).generate(PROMPTS, sampling)


@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("draft", [G2, {"antiexpert": 1.0}])
def test_greedy_texts_are_those_of_plain_decoding(engine: TransformersEngine, draft: dict[str, float], k: int) -> None:
    sampling = Sampling(samples=1, max_new_tokens=20, temperature=0)
    recipe = speculative(k, draft)
    expected = engine.serve(plain(recipe)).generate(PROMPTS, sampling)
    assert served(engine, recipe).generate(PROMPTS, sampling) == expected


def test_texts_do_not_depend_on_the_batch(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(samples=5, max_new_tokens=12, seed=2)
    recipe = speculative(3, {"antiexpert": 1.0})
    together = served(engine, recipe).generate(PROMPTS, sampling)
    monkeypatch.setattr("bench.engines.speculative.ROWS", 5)
    assert served(engine, recipe).generate(PROMPTS, sampling) == together
    alone = [served(engine, recipe).generate([prompt], sampling) for prompt in PROMPTS]
    assert [c.text for one in alone for c in one] == [c.text for c in together]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.9), (1.3, 1.0), (0.0, 0.9)])
def test_blocks_of_fixed_shapes_draw_what_growing_caches_draw(
    tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch, temperature: float, top_p: float
) -> None:
    """Rows of several lengths, of which some end, one loop for all coefficients; counts are equal, too."""
    monkeypatch.setattr("bench.engines.transformers.has_bfloat16", lambda: False)  # such drafts are models of their own
    engines = [opened(tiny_trio, static) for static in (False, True)]
    sampling = Sampling(samples=7, max_new_tokens=24, temperature=temperature, top_p=top_p, seed=3)
    for alpha in (0.5, 2.0):
        mixed = {"base": 1.0, "expert": alpha, "antiexpert": -alpha}
        growing, fixed = (served(engine, speculative(3, {"antiexpert": 1.0}, **mixed)) for engine in engines)
        found = fixed.generate(PROMPTS, sampling)
        assert found == growing.generate(PROMPTS, sampling)
        assert temperature == 0 or {c.finish_reason for c in found} == {"stop", "length"}
        assert fixed.accepted == growing.accepted > 0
        assert fixed.judged == growing.judged > fixed.accepted
    assert len(engines[1].loops._kept) == 1
    fewer = sampling.model_copy(update={"max_new_tokens": 5})
    assert fixed.generate(PROMPTS, fewer) == growing.generate(PROMPTS, fewer)
    assert [loop.shape.steps for loop in engines[1].loops._kept.values()] == [24]


def test_numbers_that_are_none_fail_the_point(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    model, real = served(engine, speculative(2)), SpeculativeModel.logits
    calls = []

    def broken(self: SpeculativeModel, hidden: list[torch.Tensor]) -> list[torch.Tensor]:
        calls.append(0)
        return [z * (torch.nan if len(calls) > 2 else 1) for z in real(self, hidden)]

    monkeypatch.setattr(SpeculativeModel, "logits", broken)
    with pytest.raises(NotFiniteError):
        model.generate(PROMPTS, Sampling(samples=2, max_new_tokens=20))


@pytest.mark.parametrize("in_bfloat16", [False, True])
def test_sampled_texts_have_the_ensembles_distribution(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch, in_bfloat16: bool
) -> None:
    """The second and third tokens of 4,000 completions, sampled both ways: by chi-square on the counts."""
    monkeypatch.setattr("bench.engines.transformers.has_bfloat16", lambda: in_bfloat16)
    monkeypatch.setattr("bench.suite.products.WORTH_HALVING", 0)
    sampling = Sampling(samples=4000, max_new_tokens=3, top_p=0.9, seed=9)
    recipe = speculative(2, {"antiexpert": 1.0}, base=1.0, expert=2.0, antiexpert=-2.0)
    model = served(engine, recipe)
    drawn = [m._decode([model.token_ids("The movie")], row_keys(PROMPTS[:1], 4000, seed), sampling, end=-1)
             for m, seed in ((model, 1), (engine.serve(plain(recipe)), 2))]  # fmt: skip
    assert model.acceptance is not None and model.acceptance < 0.9
    for place in (1, 2):
        counts = torch.stack([torch.bincount(torch.tensor([row[place] for row, _ in rows]), minlength=300)
                              for rows in drawn])  # fmt: skip
        common = counts.sum(0) >= 20
        table = torch.cat([counts[:, common], counts[:, ~common].sum(1, keepdim=True)], dim=1)
        assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3


def test_a_draft_in_bfloat16_changes_what_is_accepted_and_no_distribution(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy texts are the ensemble's own; overlaps differ, and hardly."""
    sampling = Sampling(samples=1, max_new_tokens=20, temperature=0)
    recipe = speculative(3, {"antiexpert": 1.0})
    overlaps = []
    for has_it in (False, True):
        monkeypatch.setattr("bench.engines.transformers.has_bfloat16", lambda has_it=has_it: has_it)
        monkeypatch.setattr("bench.suite.products.WORTH_HALVING", 0)
        model = served(engine, recipe)
        assert any(hasattr(module, "rounded") for module in model.draft.model.modules()) is has_it
        assert model.generate(PROMPTS, sampling) == engine.serve(plain(recipe)).generate(PROMPTS, sampling)
        model = served(engine, recipe)
        overlaps.append(model.overlap(BEGINNINGS, Sampling()))
    assert overlaps[0] != overlaps[1] == pytest.approx(overlaps[0], abs=0.01)


def test_exactly_as_many_tokens_as_asked_are_timed(engine: TransformersEngine) -> None:
    model = served(engine, speculative(4))
    assert [model.decode(PROMPTS, Sampling(samples=1, max_new_tokens=n)) for n in (1, 2, 7)] == [5, 10, 35]


def test_the_number_to_draft_by_hand() -> None:
    """Three members, a further token a fifth of a pass: with a = 0.5, 1 gives 4.5 / 4.6, 2 gives 5.25 / 6.2.

    Side by side they take 1.4 steps: five tokens of five are 7 / 5.4, and with 0.9 of them 5.73 / 5.4.
    """
    assert times_as_quick(0.5, 1, 3, 0.2) == pytest.approx(4.5 / 4.6)
    assert times_as_quick(0.5, 2, 3, 0.2) == pytest.approx(5.25 / 6.2)
    assert times_as_quick(1.0, 4, 3) == pytest.approx(15 / 7)
    assert times_as_quick(0.3, 0, 3) == 1
    assert ensemble_steps(3, side_by_side=False) == 3
    beside = ensemble_steps(3, side_by_side=True)
    assert beside == pytest.approx(1.4)
    assert times_as_quick(1.0, 4, beside) == pytest.approx(7 / 5.4)
    assert times_as_quick(0.9, 4, beside) == pytest.approx(1.4 * 4.0951 / 5.4)
    assert [best_k(a, 3) for a in (0.0, 0.5, 0.6, 1.0)] == [0, 0, 1, MOST]
    several = [best_k(a / 100, 3) for a in range(101)]
    assert several == sorted(several)


def test_where_no_draft_pays_none_is_drafted(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpeculativeModel, "overlap", lambda *_: 0.3)
    sampling = Sampling(samples=3, max_new_tokens=9)
    model = served(engine, speculative("auto", {"antiexpert": 1.0}))
    assert model.generate(PROMPTS, sampling) == engine.serve(plain(speculative())).generate(PROMPTS, sampling)
    assert model.k == 0 and model.acceptance is None


def test_auto_drafts_as_many_as_pay_whatever_is_completed(engine: TransformersEngine) -> None:
    """A draft that is the ensemble overlaps wholly; completions are those of the same number, written out."""
    sampling = Sampling(samples=3, max_new_tokens=9)
    own = served(engine, speculative("auto", {"base": 1}, base=1, expert=1e-9))
    own.generate(PROMPTS[:1], sampling)
    assert own.k == MOST and own.overlap(BEGINNINGS, sampling) == pytest.approx(1)
    other = served(engine, speculative("auto", {"antiexpert": 1.0}))
    found = other.generate(PROMPTS, sampling)
    assert other.k is not None and other.k == best_k(other.overlap(BEGINNINGS, sampling), 3) < MOST
    assert found == served(engine, speculative(other.k, {"antiexpert": 1.0})).generate(PROMPTS, sampling)
    again = served(engine, speculative("auto", {"antiexpert": 1.0}))
    again.generate(PROMPTS[2:3], sampling)
    assert again.k == other.k
