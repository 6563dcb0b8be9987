"""What only a GPU can show: our kernels against torch's, and a CUDA graph against growing caches."""

from pathlib import Path

import pytest
import torch

from bench.engines.sampling import BLOCK, block_sums, draw_once, nucleus, row_keys
from bench.engines.transformers import TransformersEngine
from bench.schema import Draft, Prompt, Recipe, Sampling
from bench.suite.checkpoints import resolve
from bench.suite.heads import Head
from tests.engines.test_sampling import sample_nucleus

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]

PROMPTS = [
    Prompt(set="s", row=i, text=t) for i, t in enumerate(["The movie", "A story of the man", "The", "The actors"])
]


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "heads", "shared", "places", "size"), [(3, 4, 4, 48, 64), (5, 8, 2, 80, 80), (2, 4, 1, 16, 128)]
)
def test_attention_is_torchs(
    dtype: torch.dtype, rows: int, heads: int, shared: int, places: int, size: int, queries: int
) -> None:
    """Queries see one place more each; one sees nothing, and stays finite."""
    from bench.engines.gpu_attention import attend

    torch.manual_seed(0)
    query = torch.randn(rows, heads, queries, size, device="cuda").to(dtype)
    key, value = (torch.randn(rows, shared, places, size, device="cuda").to(dtype) for _ in range(2))
    ends = torch.arange(places - 3 - queries, places - 3, device="cuda")[:, None]
    numbers = torch.arange(places, device="cuda")
    mask = ((numbers >= 3) & (numbers < ends)).expand(rows, 1, -1, -1).clone()
    mask[0, ..., :6] = False
    wide = [x.float().repeat_interleave(heads // shared, dim=1) for x in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(query.float(), *wide, attn_mask=mask).transpose(1, 2)
    last = torch.tensor([places - 5], device="cuda")
    key[:, :, places - 4 :] = torch.nan  # what the mask hides is not read
    slack = 1e-5 if dtype == torch.float32 else 2e-2
    for known in (None, last):
        found = attend(query, key, value, mask, size**-0.5, known)
        torch.testing.assert_close(found.float(), expected, atol=slack, rtol=slack)
    assert attend(query, key, value, torch.zeros_like(mask), size**-0.5).eq(0).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("vocabulary", [300, 4096, 50257])
def test_the_samplers_passes_are_torchs(vocabulary: int, masked: bool) -> None:
    from bench.engines.gpu_sampling import mass_above, weigh

    torch.manual_seed(0)
    logits = 3 * torch.randn(7, vocabulary + 63, device="cuda")[:, :vocabulary]
    allowed = torch.rand(7, vocabulary, device="cuda") < 0.5 if masked else None
    expected = (logits.double() - logits.amax(dim=-1, keepdim=True)).exp() * (1 if allowed is None else allowed)
    sums = weigh(logits, allowed, BLOCK)
    torch.testing.assert_close(logits.double(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(sums, block_sums(logits), atol=1e-6, rtol=1e-5)
    edge = logits[:, 5:6]
    expected = torch.where(logits > edge, logits, 0.0).sum(dim=-1)
    torch.testing.assert_close(mass_above(logits, edge), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("vocabulary", [300, 4096, 50257])
def test_the_nucleus_is_the_sorted_one(vocabulary: int, top_p: float) -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 5, vocabulary)
    expected, found = nucleus(logits, top_p), nucleus(logits.cuda(), top_p).cpu()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    moved = expected.where((found > 0) != (expected > 0), 0).sum(dim=-1)
    assert (moved < 1e-4).all()  # by rounding at the edge
    flat = nucleus(torch.zeros(2, 64, device="cuda"), top_p)
    assert (flat == 1 / 64).all()  # ties are inside


def test_no_numbers_are_told() -> None:
    logits = torch.zeros(3, 300, device="cuda")
    noise = torch.rand(3, dtype=torch.float64, device="cuda")
    assert draw_once(logits.clone(), 0.9, noise).finite
    for wrong in (torch.nan, torch.inf):
        broken = logits.clone()
        broken[1, 7] = wrong
        assert not draw_once(broken, 0.9, noise).finite


def test_draws_have_the_nucleus_distribution() -> None:
    """200,000 draws, chi-square."""
    torch.manual_seed(0)
    logits = 2 * torch.randn(50, device="cuda")
    p = nucleus(logits, 0.8)
    n = 200_000
    keys = row_keys([Prompt(set="s", row=0, text="a")], n, 0).cuda()
    drawn = sample_nucleus(logits.repeat(n, 1), 0.8, keys, 0).bincount(minlength=50)
    inside = p > 0
    assert not drawn[~inside].any()
    statistic = ((drawn - n * p).square() / (n * p))[inside].sum()
    degrees = int(inside.sum()) - 1
    assert abs(float(statistic) - degrees) < 5 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("bias", [False, True])
def test_a_head_answers_in_float32(bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 50257, bias=bias, device="cuda", dtype=torch.bfloat16).requires_grad_(False)
    hidden = torch.randn(2, 3, 256, device="cuda", dtype=torch.bfloat16)
    expected = hidden.double() @ linear.weight.double().t() + (linear.bias.double() if bias else 0)
    found = Head(linear)(hidden)
    assert found.dtype == torch.float32 and found.shape == (2, 3, 50257)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("space", ["weights", "logits", "probs", "drafted"])
def test_a_graph_draws_what_growing_caches_draw(tiny_trio: dict[str, Path], space: str, temperature: float) -> None:
    checkpoints = {name: resolve(str(folder)) for name, folder in tiny_trio.items()}
    mixed = {"base": 0.5, "expert": 0.5} if space == "probs" else {"base": 1.0, "expert": 0.8, "antiexpert": -0.8}
    draft = Draft(coefficients=mixed, k=3) if space == "drafted" else None
    recipe = Recipe(space="logits" if draft else space, coefficients=mixed, draft=draft)  # type: ignore[arg-type]
    sampling = Sampling(samples=9, max_new_tokens=20, temperature=temperature)
    drawn = []
    for static in (True, False):
        engine = TransformersEngine(checkpoints, "float32", "cuda", static=static)
        for _ in range(2):  # the second time the graph is there already
            drawn.append([c.text for c in engine.serve(recipe).generate(PROMPTS, sampling)])
        engine.close()
    for other in drawn[1:]:
        same = sum(a == b for a, b in zip(drawn[0], other, strict=True))
        assert same >= 0.95 * len(other)  # rounding may move a draw
