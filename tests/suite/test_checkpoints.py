"""Finding, hashing and comparing checkpoints, before any weight is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2LMHeadModel, GPT2TokenizerFast

from bench.schema import Point, Recipe, UserError
from bench.suite.checkpoints import digest, header, require_mixable, resolve
from bench.suite.loading import load_model
from evaluators.weight_distance import squared_distances
from tests.conftest import tiny_config

HALVES = {"base": 0.5, "expert": 0.5}
IN_WEIGHTS = Point(method="g1", params={"alpha": 0.5}, recipe=Recipe(space="weights", coefficients=HALVES))
IN_LOGITS = Point(method="dexperts", params={}, recipe=Recipe(space="logits", coefficients=HALVES))


def test_a_digest_follows_bytes_not_places(tiny_trio: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_trio["base"], copy)
    assert digest(copy) == digest(tiny_trio["base"])
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert digest(copy) != digest(tiny_trio["base"])


def test_header_gives_shapes(tiny_trio: dict[str, Path]) -> None:
    assert header(resolve(str(tiny_trio["base"])))["transformer.wpe.weight"] == (64, 64)


def test_checkpoints_of_one_shape_are_mixable(tiny_trio: dict[str, Path]) -> None:
    require_mixable({name: resolve(str(folder)) for name, folder in tiny_trio.items()}, [IN_WEIGHTS, IN_LOGITS])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(n_embd=32), r"has shapes"),
        (dict(n_layer=1), r"only one has the parameter transformer\.h\.1\."),
        (dict(vocab_size=310), r"wte\.weight has shapes \(300, 64\) and \(310, 64\)"),
    ],
)
def test_different_shapes_are_refused(
    tiny_trio: dict[str, Path],
    tiny_tokenizer: GPT2TokenizerFast,
    tmp_path: Path,
    changes: dict[str, object],
    message: str,
) -> None:
    GPT2LMHeadModel(tiny_config(len(tiny_tokenizer), **changes)).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    checkpoints = {"base": resolve(str(tiny_trio["base"])), "expert": resolve(str(tmp_path))}
    require_mixable(checkpoints, [IN_LOGITS])  # one vocabulary is enough
    with pytest.raises(UserError, match=message + r".*, which g1\(alpha=0.5\) would mix by weight"):
        require_mixable(checkpoints, [IN_LOGITS, IN_WEIGHTS])


def test_different_vocabularies_of_one_size_are_refused(tiny_trio: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_trio["expert"], copy)
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[1:3]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="tokenizers have different vocabularies"):
        require_mixable({"base": resolve(str(tiny_trio["base"])), "expert": resolve(str(copy))}, [IN_LOGITS])


def test_the_hubs_gpt2_is_mixable_with_what_is_fine_tuned_from_it(tiny_trio: dict[str, Path], tmp_path: Path) -> None:
    """Its file leaves out the prefix `transformer.` and holds the causal masks; the weights are the same."""
    hub = tmp_path / "hub"
    shutil.copytree(tiny_trio["base"], hub)
    tensors = load_file(hub / "model.safetensors")
    renamed = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    renamed["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    save_file(renamed, hub / "model.safetensors", {"format": "pt"})
    checkpoints = {"base": resolve(str(hub)), "expert": resolve(str(tiny_trio["base"]))}
    assert header(checkpoints["base"]) == header(checkpoints["expert"])
    require_mixable(checkpoints, [IN_WEIGHTS])
    assert sum(square for _, square, _ in squared_distances(*checkpoints.values())) == 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mini:bse", "no packaged model of that name"),
        ("/no/such/folder", "no such folder"),
        ("some-owner/some-model", "the hub could not give it"),
    ],
)
def test_a_missing_checkpoint_says_what_to_do(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(source)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="safetensors"):
        resolve(str(tmp_path))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("config.json", lambda path: path.write_text("[]"), "config.json should hold an object, got list"),
        ("config.json", lambda path: path.write_text("{"), "config.json is not JSON"),
        ("config.json", lambda path: path.write_text("{}"), "config.json has no model_type"),
        ("tokenizer.json", lambda path: path.write_text("{}"), "tokenizer.json has no vocabulary"),
        ("tokenizer.json", Path.unlink, "has no tokenizer"),
        ("model.safetensors", lambda path: path.write_bytes(b"not one"), "is not a safetensors file"),
        ("model.safetensors", lambda path: path.write_bytes(b"\xff" * 4000), "is not a safetensors file"),
        ("model.safetensors", cut, r"is cut off: 5,000 of [0-9,]+ bytes"),
    ],
)
def test_files_that_are_not_whole_are_named(
    tiny_trio: dict[str, Path], tmp_path: Path, name: str, spoil: Callable[[Path], object], message: str
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(tiny_trio["base"], folder)
    for other in ("vocab.json", "merges.txt"):
        (folder / other).unlink(missing_ok=True)
    spoil(folder / name)
    with pytest.raises(UserError, match=message):
        resolve(str(folder))


@pytest.mark.parametrize("change", [{"n_layer": 3}, {"n_embd": 32}, {"model_type": "nothing"}])
def test_a_configuration_of_another_model_is_refused(
    tiny_trio: dict[str, Path], tmp_path: Path, change: dict[str, object]
) -> None:
    """transformers would fill the missing layers with random numbers."""
    shutil.copytree(tiny_trio["base"], tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match=r"do not fit its config|cannot be loaded") as caught:
        load_model(AutoModelForCausalLM, resolve(str(tmp_path / "other")))
    assert "\n" not in str(caught.value)
