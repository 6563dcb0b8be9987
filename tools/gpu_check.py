"""What the vLLM engine must show on a GPU, in one command: parity, throughput, the cost of a mix, start-up.

    python -m tools.gpu_check [--out DIR] [--only PART ...] [--shape large|mini|tiny] [--quick] [--device cpu]

Needs nothing but PYTHONPATH: random GPT-2s are made on the spot.  Every part runs in a process of its own, writes
DIR/PART.json and may fail alone; DIR/gpu-check.md is rewritten after each from all that is there, so a run can be cut
off or repeated part by part.  `--device cpu --quick` runs the same code on a tiny shape: it checks this script, not a
GPU.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.engines.vllm_support import set_environment, vllm_version, why_not
from bench.schema import Prompt, Recipe, Sampling
from bench.suite.checkpoints import Checkpoint

NAMES = ("base", "expert", "antiexpert")
PARITY = [f"parity-{dtype}-{mode}" for dtype in ("float32", "bfloat16") for mode in ("graphs", "eager")]
PARTS = [*PARITY, "weights", "logits", "transformers"]
ADDITIONAL = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
END = "0"
MIX_TARGET, DEXPERTS_TARGET, GENERATE_TARGET = 3.0, 0.4, 10.0  # issue 3's acceptance


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    parity_layers: int
    prompts: tuple[int, ...]  # of each throughput run
    samples: int
    new_tokens: int
    dtype: str
    rounds: int


FULL = Scale(50257, 1280, 36, 20, 12, (40, 400, 1000), 25, 30, "bfloat16", 10)  # GPT-2 Large
MINI = Scale(4096, 192, 4, 6, 4, (120,), 5, 30, "float32", 10)  # about the packaged models' size: 600 rows
QUICK = Scale(320, 64, 2, 2, 2, (4, 8), 3, 8, "float32", 3)
SHAPES = {"large": FULL, "mini": MINI, "tiny": QUICK}


def weights(**coefficients: float) -> Recipe:
    return Recipe(space="weights", coefficients=coefficients)


def logits(**coefficients: float) -> Recipe:
    return Recipe(space="logits", coefficients=coefficients)


BASE = weights(base=1)
MIXTURE = weights(base=1, expert=0.7, antiexpert=-0.7)
DEXPERTS = logits(base=1, expert=0.7, antiexpert=-0.7)
PARITY_POINTS = [
    BASE,
    MIXTURE,
    weights(base=-0.5, expert=1.25, antiexpert=0.25),
    logits(base=1),
    DEXPERTS,
    logits(base=-0.5, expert=1.25, antiexpert=0.25),
]


# ---------------------------------------------------------------------------------------------- models


def make_models(folder: Path, scale: Scale, layers: int, device: str) -> dict[str, Checkpoint]:
    """Random GPT-2s in a folder, made where they are missing: a base and two small steps from it, in bfloat16.

    Their tokens are numbers: the text "17 5" is the tokens 17 and 5, and "0" ends a text.
    """
    paths = {name: folder / f"{scale.width}x{layers}" / name for name in NAMES}
    if not all((path / "tokenizer.json").exists() for path in paths.values()):
        _write_models(paths, scale, layers, device)
    return {name: Checkpoint(source=f"random:{name}", path=path, digest="random") for name, path in paths.items()}


def _write_models(paths: Mapping[str, Path], scale: Scale, layers: int, device: str) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=scale.vocabulary, n_positions=1024 if scale is FULL else 128, n_embd=scale.width, n_layer=layers,
        n_head=scale.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        initializer_range=0.1,  # wider than GPT-2's own 0.02, at which a tied random model only repeats its last token
    )  # fmt: skip
    with torch.device(device):
        base = GPT2LMHeadModel(config)
    for name, path in paths.items():
        model = base
        if name != "base":
            with torch.device(device):
                model = GPT2LMHeadModel(config)
            model.load_state_dict(base.state_dict())
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.01)
        model.to(torch.bfloat16 if scale is FULL else torch.float32).save_pretrained(path)
        if model is base:
            model.float()
        _write_tokenizer(path, scale.vocabulary)


def _write_tokenizer(path: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(i): i for i in range(vocabulary)}, unk_token=END))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, unk_token=END, eos_token=END, bos_token=END)
    fast.save_pretrained(path)


def make_prompts(count: int, vocabulary: int) -> list[Prompt]:
    """Random prompts of 5 to 16 tokens, as long as the paper's."""
    random = np.random.default_rng(0)
    rows = [random.integers(1, vocabulary, random.integers(5, 17)) for _ in range(count)]
    return [Prompt(set="random", row=i, text=" ".join(map(str, row))) for i, row in enumerate(rows)]


# ---------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Bench:
    """Where and how large a part runs."""

    scale: Scale
    models: Path
    device: str

    def checkpoints(self, layers: int) -> dict[str, Checkpoint]:
        return make_models(self.models, self.scale, layers, self.device)

    def vllm(self, layers: int, dtype: str, eager: bool = False) -> Any:
        from dataclasses import replace

        from bench.engines.vllm import VllmEngine
        from bench.engines.vllm_support import VllmSettings

        settings = VllmSettings.from_environment(self.device, os.environ)
        settings = replace(settings, eager=settings.eager or eager)
        return VllmEngine(self.checkpoints(layers), dtype, self.device, settings)

    def transformers(self, layers: int, dtype: str) -> Any:
        from bench.engines.transformers import TransformersEngine

        return TransformersEngine(self.checkpoints(layers), dtype, self.device)


def parity(bench: Bench, dtype: str, mode: str) -> dict[str, Any]:
    """Three points of each space against transformers in float32, drift, and reruns."""
    layers = bench.scale.parity_layers
    prompts = make_prompts(8, bench.scale.vocabulary)
    greedy = Sampling(samples=1, max_new_tokens=10, temperature=0)
    engine = bench.vllm(layers, dtype, eager=mode == "eager")
    reference, same_dtype = bench.transformers(layers, "float32"), bench.transformers(layers, dtype)
    rows = []
    for recipe in PARITY_POINTS:
        expected = reference.serve(recipe)
        wanted = expected.generate(prompts, greedy)
        texts = [f"{p.text} {c.text}".strip() for p, c in zip(prompts, wanted, strict=True)]
        exact = expected.token_logprobs(texts)
        model = engine.serve(recipe)
        drawn = model.generate(prompts, greedy)
        rows.append(
            {
                "point": describe(recipe),
                "greedy_equal": sum(a.text == b.text for a, b in zip(drawn, wanted, strict=True)),
                "greedy_total": len(wanted),
                "vllm_difference": largest(model.token_logprobs(texts), exact),
                "transformers_difference": largest(same_dtype.serve(recipe).token_logprobs(texts), exact),
            }
        )
    result = {"points": rows, "dtype": dtype, "mode": mode, **steadiness(engine, prompts)}
    engine.close()
    return result


def steadiness(engine: Any, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """After 50 random changes and back, are log-probabilities the same bits?  Does a rerun draw the same texts?"""
    found: dict[str, Any] = {}
    texts = [prompt.text for prompt in prompts]
    sampling = Sampling(samples=25, max_new_tokens=10)
    for recipe in (MIXTURE, DEXPERTS):
        before = engine.serve(recipe).token_logprobs(texts)
        for alpha, beta in np.random.default_rng(0).normal(size=(50, 2)):
            changed = {"base": 1 - alpha - beta, "expert": alpha, "antiexpert": beta}
            engine.serve(Recipe(space=recipe.space, coefficients=changed))
        model = engine.serve(recipe)
        found[f"drift_{recipe.space}"] = largest(model.token_logprobs(texts), before)
        first = model.generate(prompts, sampling)
        found[f"rerun_equal_{recipe.space}"] = first == model.generate(prompts, sampling)
    return found


def weights_part(bench: Bench) -> dict[str, Any]:
    """Start-up, throughput of the base and of a mixture in one engine, the time of a mix against the bandwidth."""
    engine = bench.vllm(bench.scale.layers, bench.scale.dtype)
    start = time.perf_counter()
    engine.serve(BASE)
    started = time.perf_counter() - start
    result: dict[str, Any] = {"start_s": started, "base": throughput(engine.serve(BASE), bench)}
    result["mixture"] = throughput(engine.serve(MIXTURE), bench)
    live = engine._live["weights"]
    shape = live.call("lerpbench_shape")
    result["mix"] = mix_cost(live, live.vector(MIXTURE), shape, bench)
    result["survived_update"] = engine.survived_update()
    result["shape"] = shape
    result["memory"] = memory(bench.device)
    engine.close()
    return result


def mix_cost(live: Any, coefficients: list[float], shape: Mapping[str, Any], bench: Bench) -> dict[str, Any]:
    """Median seconds of an in-place mix, and the least time that its bytes need at the measured bandwidth."""
    seconds = live.call("lerpbench_time_mix", coefficients, bench.scale.rounds + 1)[1:]
    moved = shape["parameters"] * (4 * shape["anchors"] + shape["bytes_per_parameter"])
    bandwidth = copy_bandwidth(bench.device)
    median = float(np.median(seconds))
    limit = moved / bandwidth
    return {"median_s": median, "limit_s": limit, "bandwidth_bytes_per_s": bandwidth, "ratio": median / limit}


def copy_bandwidth(device: str) -> float:
    """Bytes a second, read and written, of the device's best copy out of ten."""
    import torch

    n = 2**30 if device.startswith("cuda") else 2**26
    source = torch.zeros(n, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * n / best


def logits_part(bench: Bench) -> dict[str, Any]:
    """Start-up and throughput of DExperts."""
    engine = bench.vllm(bench.scale.layers, bench.scale.dtype)
    start = time.perf_counter()
    model = engine.serve(DEXPERTS)
    result = {"start_s": time.perf_counter() - start, "dexperts": throughput(model, bench)}
    result["memory"] = memory(bench.device)
    engine.close()
    return result


def transformers_part(bench: Bench) -> dict[str, Any]:
    """The baselines on the same model: our transformers engine, and plain `generate()` at the same batch of rows."""
    engine = bench.transformers(bench.scale.layers, bench.scale.dtype)
    smallest = Bench(replace_prompts(bench.scale), bench.models, bench.device)
    result = {"engine": throughput(engine.serve(BASE), smallest)}
    engine.close()
    result["generate"] = [plain_generate(bench)]
    return result


def replace_prompts(scale: Scale) -> Scale:
    """The same scale with its first throughput run alone."""
    from dataclasses import replace

    return replace(scale, prompts=scale.prompts[:1])


def plain_generate(bench: Bench) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    scale = bench.scale
    path = bench.suite.checkpoints(scale.layers)["base"].path
    model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, scale.dtype)).to(bench.device).eval()
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", pad_token=END)
    prompts = make_prompts(scale.prompts[0], scale.vocabulary)
    inputs = tokenizer([p.text for p in prompts], padding=True, return_tensors="pt").to(bench.device)
    inputs.pop("token_type_ids", None)
    for _ in range(2):  # the first warms up
        clock = Clock(bench.device)
        with torch.inference_mode():
            drawn = model.generate(
                **inputs, do_sample=True, top_p=0.9, top_k=0, max_new_tokens=scale.new_tokens,
                num_return_sequences=scale.samples, pad_token_id=0,
            )  # fmt: skip
        spent = clock.read()
    new = drawn[:, inputs["input_ids"].shape[1] :]
    tokens = int((new != 0).sum())
    return measured(len(prompts), tokens, spent)


def throughput(model: Any, bench: Bench) -> list[dict[str, Any]]:
    """Tokens a second of each number of prompts, after one run to warm up."""
    scale = bench.scale
    sampling = Sampling(samples=scale.samples, max_new_tokens=scale.new_tokens, top_p=0.9)
    model.generate(make_prompts(scale.prompts[0], scale.vocabulary), sampling)
    rows = []
    for count in scale.prompts:
        prompts = make_prompts(count, scale.vocabulary)
        clock = Clock(bench.device)
        completions = model.generate(prompts, sampling)
        rows.append(measured(count, sum(c.n_tokens for c in completions), clock.read()))
    return rows


class Clock:
    """Seconds by the wall and of this process's processors, which a busy machine does not stretch."""

    def __init__(self, device: str) -> None:
        self.device = device
        synchronize(device)
        self.start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        synchronize(self.device)
        return time.perf_counter() - self.start[0], time.process_time() - self.start[1]


def measured(prompts: int, tokens: int, spent: tuple[float, float]) -> dict[str, Any]:
    seconds, cpu = spent
    return {
        "prompts": prompts, "tokens": tokens, "seconds": seconds, "cpu_seconds": cpu, "tokens_per_s": tokens / seconds,
        "tokens_per_cpu_s": tokens / cpu,
    }  # fmt: skip


def largest(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(x.astype(np.float64) - y).max()) for x, y in zip(a, b, strict=True))


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def memory(device: str) -> dict[str, float]:
    """Most GPU memory that torch held, in bytes."""
    if not device.startswith("cuda"):
        return {}
    import torch

    return {"peak_reserved_bytes": float(torch.cuda.max_memory_reserved())}


def describe(recipe: Recipe) -> str:
    return f"{recipe.space}({', '.join(f'{k}={v:g}' for k, v in recipe.coefficients.items())})"


def run_part(name: str, bench: Bench) -> dict[str, Any]:
    others: dict[str, Callable[[Bench], dict[str, Any]]] = {
        "weights": weights_part,
        "logits": logits_part,
        "transformers": transformers_part,
    }
    if name in others:
        return others[name](bench)
    _, dtype, mode = name.split("-")
    return parity(bench, dtype, mode)


# ---------------------------------------------------------------------------------------------- report


def report(results: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """Markdown of all parts that are there."""
    lines = [
        "# GPU check",
        "",
        f"Made by `python -m tools.gpu_check`; {', '.join(f'{k} {v}' for k, v in about.items())}.",
    ]
    if about.get("device") == "cpu":
        lines += ["", "**Run on a CPU, where both modes are eager: it checks the script; no figure is a GPU's.**"]
    lines += ["", *parity_table(results), "", *speed_table(results), "", *verdicts(results)]
    failed = [f"- {name}: {r['error']}" for name, r in results.items() if "error" in r]
    if failed:
        lines += ["", "## Failed", "", *failed]
    return "\n".join(lines) + "\n"


def parity_table(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        "## Parity with transformers in float32",
        "",
        "| dtype | mode | point | greedy texts equal | largest log-probability difference | of transformers itself |",
        "|---|---|---|---|---|---|",
    ]
    for name in PARITY:
        found = results.get(name, {})
        for row in found.get("points", []):
            equal = f"{row['greedy_equal']} of {row['greedy_total']}"
            differences = f"{row['vllm_difference']:.1e} | {row['transformers_difference']:.1e}"
            lines.append(f"| {found['dtype']} | {found['mode']} | {row['point']} | {equal} | {differences} |")
    for name in PARITY:
        if "points" in (found := results.get(name, {})):
            drift = ", ".join(f"{s} {found[f'drift_{s}']:g}" for s in ("weights", "logits"))
            rerun = ", ".join(f"{s} {found[f'rerun_equal_{s}']}" for s in ("weights", "logits"))
            lines += ["", f"{name}: drift after 50 changes and back: {drift}; reruns equal: {rerun}."]
    return lines


def speed_table(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = ["## Throughput", "", "| what | prompts | new tokens | seconds | tokens/s | tokens per processor second |"]
    lines += ["|---|---|---|---|---|---|"]
    for part, key, label in (
        ("weights", "base", "vLLM, base"),
        ("weights", "mixture", "vLLM, weights mixture"),
        ("logits", "dexperts", "vLLM, DExperts"),
        ("transformers", "engine", "transformers engine, base"),
        ("transformers", "generate", "transformers generate(), base"),
    ):
        for row in results.get(part, {}).get(key, []):
            speed = f"{row['seconds']:.2f} | {row['tokens_per_s']:,.0f} | {row['tokens_per_cpu_s']:,.0f}"
            lines.append(f"| {label} | {row['prompts']} | {row['tokens']:,} | {speed} |")
    return lines


def verdicts(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The acceptance figures of issue 3, each where its parts are there."""
    lines = ["## Targets", "", "| what | found | wanted |", "|---|---|---|"]
    heavy, light, plain = (results.get(part, {}) for part in ("weights", "logits", "transformers"))
    if mix := heavy.get("mix"):
        found = f"{1e3 * mix['median_s']:.2f} ms, {mix['ratio']:.2f} times the limit of {1e3 * mix['limit_s']:.2f} ms"
        lines.append(f"| in-place mix of three anchors | {found} | at most {MIX_TARGET:g} times |")
    if "base" in heavy and "dexperts" in light:
        shares = [d["tokens_per_s"] / b["tokens_per_s"] for d, b in zip(light["dexperts"], heavy["base"], strict=True)]
        found = ", ".join(f"{share:.0%}" for share in shares)
        lines.append(f"| DExperts' share of the base's tokens/s | {found} | at least {DEXPERTS_TARGET:.0%} |")
    if "base" in heavy and "generate" in plain:
        times = heavy["base"][0]["tokens_per_s"] / plain["generate"][0]["tokens_per_s"]
        lines.append(f"| base against generate(), same rows | {times:.1f} times | {GENERATE_TARGET:g} times |")
    for part, found_part in (("weights", heavy), ("logits", light)):
        if "start_s" in found_part:
            lines.append(f"| start of the {part} engine | {found_part['start_s']:.1f} s | |")
        if peak := found_part.get("memory", {}).get("peak_reserved_bytes"):
            lines.append(f"| its peak GPU memory | {peak / 2**30:.1f} GiB | |")
    if (share := heavy.get("survived_update")) is not None:
        lines.append(f"| share of the update that {heavy.get('dtype', 'the dtype')} keeps | {share:.4f} | |")
    return lines


def about_machine(device: str, scale: Scale) -> dict[str, Any]:
    import torch
    import transformers

    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vllm": vllm_version(),
        "transformers": transformers.__version__,
        "model": f"{scale.layers} layers x {scale.width}, {scale.vocabulary} tokens, {scale.dtype}",
    }


# ---------------------------------------------------------------------------------------------- command


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder for the results")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "lerpbench-gpu-check")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=SHAPES, default="large", help="GPT-2 Large, the packaged models, or tiny")
    parser.add_argument("--quick", action="store_const", const="tiny", dest="shape", help="the same as --shape tiny")
    parser.add_argument("--timeout-s", type=float, default=300, help="limit of one part")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if (reason := cannot_run(chosen.device, chosen.shape)) is not None:
        print(f"gpu-check: {reason}")
        return 2
    for name, value in ADDITIONAL.items():
        os.environ.setdefault(name, value)
    set_environment()
    scale = SHAPES[chosen.shape]
    bench = Bench(scale, chosen.models / chosen.shape, chosen.device)
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.part is not None:
        write_json(chosen.out / f"{chosen.part}.json", {"dtype": scale.dtype, **run_part(chosen.part, bench)})
        return 0
    return run_all(chosen, bench)


def cannot_run(device: str, shape: str) -> str | None:
    """One line saying why there is nothing to check here; None where there is."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return "no CUDA GPU here; `--device cpu --quick` checks the script itself on vLLM's CPU build"
    if device == "cpu" and shape == "large":
        return "GPT-2 Large takes hours on a CPU; add --quick or --shape mini"
    return why_not(device)


def run_all(chosen: argparse.Namespace, bench: Bench) -> int:
    """Each part in a process of its own; the report after each.  Returns 1 if one failed."""
    about = about_machine(chosen.device, bench.scale)
    failures = 0
    for name in chosen.only:
        start = time.perf_counter()
        error = run_child(name, chosen)
        print(f"gpu-check: {name}: {error or 'done'} in {time.perf_counter() - start:.0f} s", flush=True)
        if error is not None:
            failures += 1
            write_json(chosen.out / f"{name}.json", {"error": error})
        (chosen.out / "gpu-check.md").write_text(report(read_results(chosen.out), about))
        write_json(chosen.out / "gpu-check.json", {"about": about, "results": read_results(chosen.out)})
    print((chosen.out / "gpu-check.md").read_text())
    return 1 if failures else 0


def run_child(name: str, chosen: argparse.Namespace) -> str | None:
    """Run one part; its output goes to DIR/PART.log.  Returns what went wrong, or None."""
    command = [sys.executable, "-m", "tools.gpu_check", "--part", name, "--out", str(chosen.out)]
    command += ["--models", str(chosen.models), "--device", chosen.device, "--shape", chosen.shape]
    log = chosen.out / f"{name}.log"
    with log.open("w") as file:
        try:
            code = subprocess.run(command, stdout=file, stderr=file, timeout=chosen.timeout_s, check=False).returncode
        except subprocess.TimeoutExpired:
            return f"took longer than {chosen.timeout_s:g} s; its log is {log}"
    if code == 0:
        return None
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"exit status {code}; its log {log} ends: {lines[-1][:300] if lines else '(empty)'}"


def read_results(folder: Path) -> dict[str, Any]:
    """Part -> what it found, for every part that has run."""
    return {p: json.loads((folder / f"{p}.json").read_text()) for p in PARTS if (folder / f"{p}.json").is_file()}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
