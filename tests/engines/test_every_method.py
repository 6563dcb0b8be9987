"""Every method through both engines, or refused when a run is planned, with the reason."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import methods
from bench.engines import require_servable
from bench.engines.transformers import TransformersEngine
from bench.engines.vllm import VllmEngine
from bench.engines.vllm_support import VllmSettings, why_not
from bench.schema import Prompt, Sampling, UserError
from bench.suite.checkpoints import Checkpoint, resolve
from tests.test_methods import recipe_of

os.environ.setdefault("OMP_NUM_THREADS", "1")
TEXTS = ["The movie was", "A man"]
PROMPTS = [Prompt(set="tiny", row=i, text=text) for i, text in enumerate(TEXTS)]
GREEDY = Sampling(samples=1, max_new_tokens=8, temperature=0)
PREFIX, VECTOR = "none can have a prefix", "adds nothing to activations"
REFUSED = {"prompt": PREFIX, "cfg": PREFIX, "preadd": PREFIX, "activation_addition": VECTOR}  # by vLLM


@pytest.fixture(scope="module")
def checkpoints(tiny_trio: dict[str, Path]) -> dict[str, Checkpoint]:
    names = {"base": "base", "expert": "expert", "antiexpert": "antiexpert", "target": "other"}
    return {name: resolve(str(tiny_trio[of])) for name, of in names.items()}


@pytest.fixture(scope="module")
def reference(checkpoints: dict[str, Checkpoint]) -> TransformersEngine:
    return TransformersEngine(checkpoints, "float32", "cpu")


@pytest.fixture(scope="module")
def engine(checkpoints: dict[str, Checkpoint]) -> Iterator[VllmEngine]:
    engine = VllmEngine(checkpoints, "float32", "cpu", VllmSettings(max_num_seqs=64, eager=True))
    yield engine
    engine.close()


@pytest.mark.parametrize("name", methods.TABLE)
def test_the_reference_engine_serves_every_method(
    reference: TransformersEngine, checkpoints: dict[str, Checkpoint], name: str
) -> None:
    recipe = recipe_of(name)
    require_servable("transformers", [recipe], checkpoints)
    model = reference.serve(recipe)
    assert np.exp(model.next_token_logprobs(TEXTS)).sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert [c.prompt for c in model.generate(PROMPTS, GREEDY)] == [0, 1]


@pytest.mark.parametrize("name", methods.TABLE)
def test_vllm_takes_a_method_or_says_at_plan_time_why_not(checkpoints: dict[str, Checkpoint], name: str) -> None:
    if name not in REFUSED:
        require_servable("vllm", [recipe_of(name)], checkpoints)
        return
    with pytest.raises(UserError, match=f"engine vllm: .*{REFUSED[name]}.*; use --engine transformers"):
        require_servable("vllm", [recipe_of(name)], checkpoints)


@pytest.mark.vllm
@pytest.mark.skipif(why_not("cpu") is not None, reason=f"vLLM's CPU build cannot run: {why_not('cpu')}")
@pytest.mark.parametrize("name", [name for name in methods.TABLE if name not in REFUSED])
def test_vllm_serves_what_the_reference_serves(engine: VllmEngine, reference: TransformersEngine, name: str) -> None:
    recipe = recipe_of(name)
    found, expected = engine.serve(recipe), reference.serve(recipe)
    np.testing.assert_allclose(found.next_token_logprobs(TEXTS), expected.next_token_logprobs(TEXTS), atol=1e-4)
    written = [[c.text for c in model.generate(PROMPTS, GREEDY)] for model in (found, expected)]
    assert written[0] == written[1]
