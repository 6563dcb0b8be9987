"""Checkpoints reach nodes that lack them, byte for byte."""

from pathlib import Path

import pytest
import torch

from bench.cluster import weights
from bench.cluster.weights import Sent, kept, packed, sent, unpacked
from bench.experts.adapters import densified, with_new_adapter
from bench.schema import Lora, UserError
from bench.suite.checkpoints import Checkpoint, digest, resolve
from bench.suite.loading import load_model


def elsewhere(one: Sent, tmp_path: Path) -> Sent:
    """The same checkpoint as a node knows it that does not see its folder."""
    return Sent(one.checkpoint.model_copy(update={"path": tmp_path / "nowhere"}), one.content)


def test_a_node_without_the_files_gets_them_once(tiny_trio: dict[str, Path], tmp_path: Path) -> None:
    here = sent(resolve(str(tiny_trio["base"])), tmp_path)
    assert kept(here, tmp_path) == here.checkpoint
    there = elsewhere(here, tmp_path)
    assert kept(there, tmp_path / "node") is None
    got = unpacked(there, packed(here), tmp_path / "node")
    assert got == kept(there, tmp_path / "node") == unpacked(there, packed(here), tmp_path / "node")
    assert resolve(str(got.path)).digest == here.content
    assert [path.name for path in (tmp_path / "node" / "checkpoints").iterdir()] == [here.content]


def test_files_that_changed_are_refused(tiny_trio: dict[str, Path], tmp_path: Path) -> None:
    here = sent(resolve(str(tiny_trio["base"])), tmp_path)
    with pytest.raises(UserError, match="its files have changed since the run was prepared"):
        unpacked(here, {**packed(here), "config.json": b"{}"}, tmp_path)
    assert kept(elsewhere(here, tmp_path), tmp_path) is None


def test_a_folder_of_other_bytes_is_not_the_checkpoint(tiny_trio: dict[str, Path], tmp_path: Path) -> None:
    """At the driver's path, where this node has another model; and in the cache, where a disk lost a bit."""
    here = sent(resolve(str(tiny_trio["base"])), tmp_path)
    other = here.checkpoint.model_copy(update={"path": tiny_trio["expert"]})
    assert kept(Sent(other, here.content), tmp_path) is None
    there = elsewhere(here, tmp_path)
    got = unpacked(there, packed(here), tmp_path)
    config = got.path / "config.json"
    config.write_text(config.read_text() + " ")
    assert kept(there, tmp_path) is None
    assert unpacked(there, packed(here), tmp_path) == kept(there, tmp_path)
    assert digest(got.path) == here.content


def test_bytes_are_hashed_once_a_node(
    tiny_trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(weights, "digest", lambda folder: hashed.append(folder) or digest(folder))
    here = sent(resolve(str(tiny_trio["base"])), tmp_path)
    for _ in range(2):
        assert kept(here, tmp_path) == here.checkpoint
    assert hashed == []  # the driver's own machine: it resolved the checkpoint just now
    for _ in range(2):
        assert kept(here, tmp_path / "another") == here.checkpoint
    assert hashed == [tiny_trio["base"]]


def test_a_merged_adapter_reaches_a_node_that_lacks_it(tiny_trio: dict[str, Path], tmp_path: Path) -> None:
    """Its digest is of base and adapter, not of the merged files' bytes."""
    base = resolve(str(tiny_trio["base"]))
    adapter = tmp_path / "adapter"
    from transformers import AutoModelForCausalLM

    model = with_new_adapter(load_model(AutoModelForCausalLM, base, dtype=torch.float32), Lora(r=2), seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    model.save_pretrained(adapter)
    merged: Checkpoint = densified(base, str(adapter), tmp_path / "driver")
    here = sent(merged, tmp_path / "driver")
    assert here.content == digest(merged.path) != merged.digest
    there = elsewhere(here, tmp_path)
    assert kept(there, tmp_path / "node") is None
    got = unpacked(there, packed(here), tmp_path / "node")
    assert got.digest == merged.digest and digest(got.path) == here.content
    assert kept(there, tmp_path / "node") == got
