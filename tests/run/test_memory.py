"""What models take, by hand and measured."""

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from transformers import GPT2TokenizerFast, LlamaConfig, LlamaForCausalLM

import lerpbench
from bench.run.memory import needed, parameters
from bench.suite.architecture import rows_at_once
from bench.suite.checkpoints import Checkpoint


def test_memory_by_hand(tiny_suite: Path) -> None:
    """g1 and g3 mix three checkpoints by weight; DExperts runs the same three as members; all float32."""
    work = lerpbench.prepare(str(tiny_suite), "transformers")
    one = parameters(work.checkpoints["base"])
    vocabulary = 300
    layer = 2 * 2 * 64 + (64 * 192 + 192) + (64 * 64 + 64) + (64 * 256 + 256) + (256 * 64 + 64)
    assert one == vocabulary * 64 + 64 * 64 + 2 * layer + 2 * 64
    found = needed(work, "cpu")
    assert found.served == 4 * one and found.members == 3 * 4 * one
    assert 3 * 4 * one <= found.anchors < 3 * 4 * one + 3 * 10_000  # the files' headers beside the numbers
    longest = len(work.prompts[4].text.split())  # "The actors are great"; in tokens at least a word each
    per_token = 3 * 2 * 2 * 64 * 4  # members, keys and values, layers, width, bytes
    assert found.cache % (rows_at_once("cpu") * per_token) == 0 and found.cache >= rows_at_once("cpu") * per_token * (
        longest + 6
    )
    assert found.total == found.anchors + found.served + found.members + found.cache
    weights_alone = needed(lerpbench.prepare(str(tiny_suite), "transformers", ["g1"]), "cpu")
    assert weights_alone.members == 0 and weights_alone.cache == found.cache / 3


def hollow(folder: Path, config: LlamaConfig, tokenizer: GPT2TokenizerFast) -> Checkpoint:
    """A checkpoint in bfloat16 whose numbers nobody wrote: headers, and a file with holes of the right size."""
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: list(p.shape) for name, p in LlamaForCausalLM(config).named_parameters()}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    packed = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(packed)) + packed)
        file.truncate(8 + len(packed) + end)
    return Checkpoint(source=str(folder), path=folder, digest=folder.name)


def test_a_model_of_seven_billion_is_reckoned_from_its_headers(
    tiny_suite: Path, tiny_tokenizer: GPT2TokenizerFast, tmp_path: Path
) -> None:
    """Llama 2 7B: 32 layers of 4 x 4096^2 + 3 x 4096 x 11008 + 2 x 4096, two of 32000 x 4096, and 4096."""
    config = LlamaConfig(vocab_size=32000)  # its other defaults are Llama 2 7B's
    each = 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 2 * 32000 * 4096 + 4096
    assert each == 6_738_415_616
    checkpoints = {name: hollow(tmp_path / name, config, tiny_tokenizer) for name in ("base", "expert", "antiexpert")}
    work = lerpbench.prepare(str(tiny_suite), "transformers", ["g1", "base"])
    suite = work.suite.model_copy(update={"dtype": "bfloat16"})
    found = needed(replace(work, suite=suite, checkpoints=checkpoints), "cpu")
    assert found.served == 2 * each and found.members == 0
    assert 0 <= found.anchors - 3 * 2 * each < 3 * 100_000  # the headers
    assert found.cache % (rows_at_once("cpu") * 2 * 32 * 4096 * 2) == 0  # rows, keys and values, layers, width, bytes


MIXING = """
import sys, torch
from bench.engines.flat import FlatWeights
from bench.schema import Recipe
from bench.suite.checkpoints import resolve
from transformers import AutoModelForCausalLM

def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024

checkpoints = {name: resolve(sys.argv[1] + "/" + name) for name in ("base", "expert", "antiexpert")}
load = lambda name, dtype: AutoModelForCausalLM.from_pretrained(checkpoints[name].path, dtype=dtype or "auto")
weights = FlatWeights(checkpoints, load, torch.float32, "cpu")
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts anew
before = status("VmRSS")
weights.serve(Recipe(space="weights", coefficients={"base": 1, "expert": 0.5, "antiexpert": -0.5}))
print(status("VmHWM") - before)
"""


def test_mixing_takes_what_the_plan_says(tmp_path: Path, tiny_tokenizer: GPT2TokenizerFast) -> None:
    """Three anchors in bfloat16 and a mixture in float32: ten bytes a parameter; the pages of the file that is being
    read, two more, which the system may drop; and four pieces of 64 MiB."""
    config = LlamaConfig(vocab_size=300, hidden_size=1024, intermediate_size=4096, num_hidden_layers=6,
                         num_attention_heads=8)  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    for name in ("base", "expert", "antiexpert"):
        model.save_pretrained(tmp_path / name)
        tiny_tokenizer.save_pretrained(tmp_path / name)
    values = sum(p.numel() for p in model.parameters())
    done = subprocess.run(
        [sys.executable, "-c", MIXING, str(tmp_path)], capture_output=True, text=True, check=True, timeout=300
    )
    peak = int(done.stdout)
    assert 9 * values < peak < 12 * values + 4 * 2**26
