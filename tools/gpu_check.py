"""What the engines must show on a GPU, in one command: parity and speed on random models of a given shape.

    python -m tools.gpu_check [--out DIR] [--only PART ...] [--shape large|llama|...] [--device cpu]

`parity-DTYPE` is `bench.run.parity`: vLLM in that dtype against transformers in float32; `rounding` is transformers
in bfloat16 against itself in float32: what rounding alone does; `graphs` compares the transformers engine's steps of
fixed shapes, on a GPU CUDA graphs, with growing caches.  `rates-ENGINE` is tokens a second, the most of a few calls,
`growing` the transformers engine with growing caches, `generate` plain `transformers.generate()`; `speed-ENGINE` is the
overhead stopwatch, minutes for a large shape.  `speculation` is DExperts with a draft and without, of experts near the
base (`tools.speculation`).  `sweep-ENGINE` is 15 alphas of DExperts in one batch and one after another.  Every part
runs in a process of its own (but with `--one-process`), writes DIR/PART.md and DIR/PART.json and may fail alone;
DIR/gpu-check.md is put together anew after each.  Needs nothing but PYTHONPATH; with `--device cpu --shape tiny` the
same code checks this script, not a GPU.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any

from rich import box
from rich.table import Table

import methods
from bench import engines
from bench.cli.costs import cost_table, remarks
from bench.engines.transformers import TransformersEngine
from bench.engines.vllm_support import set_environment
from bench.markdown import printed
from bench.overhead.ledger import records
from bench.overhead.machine import machine
from bench.overhead.model import fastest_s, measure_rates, shape_of
from bench.overhead.stopwatch import Stopwatch
from bench.overhead.subjects import choose_subjects
from bench.progress import on_terminal
from bench.run.parity import judged_by, parity
from bench.schema import Completion, MethodSpec, OverheadSpec, Prompt, Recipe, Sampling, Suite
from bench.suite.checkpoints import Checkpoint
from bench.suite.points import plan_points
from evaluators.distinct import Distinct
from evaluators.length import Length
from tools.random_models import NAMES, SHAPES, Shape, random_checkpoints, random_prompts
from tools.speculation import HEAD, NEAR, compare

METHODS = (
    MethodSpec(name="base"),
    MethodSpec(name="g1", params={"alpha": (1.5,)}),
    MethodSpec(name="g2", params={"alpha": (0.7,)}),
    MethodSpec(name="dexperts", params={"alpha": (0.7,)}),
)
PARTS = (
    "parity-float32", "parity-bfloat16", "rounding", "graphs",
    "rates-transformers", "rates-growing", "rates-vllm", "generate", "speed-transformers", "speed-vllm",
    "speculation", "sweep-transformers", "sweep-vllm",
)  # fmt: skip
SWEEP = tuple(round(0.1 * i, 1) for i in range(1, 16))  # alphas


class Check:
    """The parts: each returns its Markdown and the values that it shows."""

    def __init__(self, shape: Shape, models: Path, device: str) -> None:
        self.shape = shape
        self.models = models
        self.device = device

    @cached_property
    def checkpoints(self) -> dict[str, Checkpoint]:
        return random_checkpoints(self.models, self.shape, self.device)

    def run(self, part: str) -> tuple[str, Any]:
        kind, _, of = part.partition("-")
        of_each: dict[str, Callable[[str], tuple[str, Any]]] = {
            "parity": partial(self.parity, "vllm"),
            "rates": self.rates,
            "speed": self.speed,
            "sweep": self.sweep,
        }
        if kind in of_each:
            return of_each[kind](of)
        alone = {"generate": self.generate, "speculation": self.speculation}
        if part in alone:
            return alone[part]()
        engine, dtype = {"rounding": ("transformers", "bfloat16"), "graphs": ("growing", "float32")}[part]
        return self.parity(engine, dtype)

    def suite(self, dtype: str) -> Suite:
        folders = {name: str(checkpoint.path) for name, checkpoint in self.checkpoints.items()}
        sampling = Sampling(samples=25, max_new_tokens=self.shape.new_tokens, top_p=0.9)
        return Suite(name="random", checkpoints=folders, prompts={}, methods=METHODS, sampling=sampling, dtype=dtype)

    def opener(self, engine: str, dtype: str) -> Callable[[], Any]:
        if engine == "vllm":
            return lambda: engines.engine_class(engine)(self.checkpoints, dtype, self.device)
        return lambda: TransformersEngine(self.checkpoints, dtype, self.device, static=engine == "transformers")

    def parity(self, engine: str, dtype: str) -> tuple[str, Any]:
        suite = self.suite(dtype)
        report = parity(
            suite, plan_points(suite, methods.registry()), random_prompts(16, self.shape),
            self.opener("transformers", "float32"), self.opener(engine, dtype),
            judged_by([Length(), Distinct()], None), self.device,
        )  # fmt: skip
        return report.markdown(), report.model_dump(mode="json")

    def speed(self, engine: str) -> tuple[str, Any]:
        """The ledger of base, g2 and DExperts; the switch to g2 against the bytes that a mix moves."""
        suite = self.suite(self.shape.dtype)
        chosen = choose_subjects(plan_points(suite, methods.registry(), ["g2", "dexperts"]), methods.registry(), NAMES)
        spec = OverheadSpec(
            batch_sizes=self.shape.rows, new_tokens=(self.shape.new_tokens,), rounds=self.shape.rounds, precision=0.05,
            budget_s=60,
        )  # fmt: skip
        stopwatch = Stopwatch(
            self.opener(engine, suite.dtype), [s for s in chosen if s.role in ("base", "again", "method")],
            random_prompts(max(self.shape.rows), self.shape), suite.sampling, spec, machine(self.device), perf_counter,
        )  # fmt: skip
        ledger, model = stopwatch.record(on_terminal), shape_of(self.checkpoints["base"], suite.dtype)
        rates = measure_rates(self.device, suite.dtype, model.parameters)
        found = records(ledger, model, rates)
        switch_s = next(r.value or 0.0 for r in found if (r.method, r.metric) == ("g2", "switch_s"))
        moved = model.parameters * (4 * len(NAMES) + model.bytes_per_value)  # float32 anchors in, served weights out
        mix = (
            f"- in-place mix of {len(NAMES)} anchors: {1e3 * switch_s:.2f} ms, "
            f"{switch_s * rates.bytes_per_s / moved:.2f} times what its {moved / 1e6:,.0f} MB need at "
            f"{rates.bytes_per_s / 1e9:,.0f} GB/s\n"
        )
        shown = [markdown(cost_table(found, rows, self.shape.new_tokens, f"Batch {rows}")) for rows in self.shape.rows]
        values = [record.model_dump(mode="json") for record in found]
        return "\n".join([*shown, *(f"- {remark}" for remark in remarks(found)), mix]), values

    def rates(self, engine: str) -> tuple[str, Any]:
        """Tokens a second by rows and method; seconds until the first token of each method, and of a switch."""
        opened, found, lines = self.opener(engine, self.shape.dtype)(), [], []
        for point in plan_points(self.suite(self.shape.dtype), methods.registry(), ["base", "g2", "dexperts"]):
            started = perf_counter()
            model = opened.serve(point.recipe)
            model.decode(random_prompts(1, self.shape), Sampling(samples=1, max_new_tokens=1))
            first_token_s = perf_counter() - started
            rates = {}
            for rows in self.shape.rows:
                prompts, asked = self.batch(rows)
                complete = partial(model.decode, prompts, asked)
                rates[rows] = rows * asked.max_new_tokens / fastest_s(complete, self.device)
            switch_s = fastest_s(partial(opened.serve, point.recipe), self.device)
            found.append({"method": point.method, "rates": rates, "first_token_s": first_token_s, "switch_s": switch_s})
            shown = ", ".join(f"{rate:,.0f} tokens/s at {rows} rows" for rows, rate in rates.items())
            switched = f"first token after {first_token_s:.1f} s, a switch takes {1e3 * switch_s:.1f} ms"
            lines.append(f"- {point.method}: {shown}; {switched}\n")
            print(lines[-1], end="", flush=True)  # in the log, should the time run out
        opened.close()
        return "".join(lines), found

    def batch(self, rows: int) -> tuple[list[Prompt], Sampling]:
        """Prompts and sampling that make so many rows, up to 32 of a prompt."""
        samples = min(rows, 32)
        return random_prompts(rows // samples, self.shape), Sampling(
            samples=samples, max_new_tokens=self.shape.new_tokens, top_p=0.9
        )

    def sweep(self, engine: str) -> tuple[str, Any]:
        """Seconds for 15 alphas x 20 prompts x 1 sample together and one by one, the least of three rounds."""
        opened, prompts = self.opener(engine, self.shape.dtype)(), random_prompts(20, self.shape)
        sampling = Sampling(samples=1, max_new_tokens=self.shape.new_tokens, top_p=0.9)
        recipes = [
            Recipe(space="logits", coefficients={"base": 1, "expert": alpha, "antiexpert": -alpha}) for alpha in SWEEP
        ]

        def together(asked: Sampling) -> list[list[Completion]]:
            at_once = min(len(recipes), opened.mixtures_per_batch(prompts, asked))
            parts = [recipes[start : start + at_once] for start in range(0, len(recipes), at_once)]
            return [drawn for part in parts for drawn in opened.sweep(part, prompts, asked)]

        def one_by_one(asked: Sampling) -> list[list[Completion]]:
            return [opened.serve(recipe).generate(prompts, asked) for recipe in recipes]

        equal = {}
        for name, asked in (("greedy", sampling.model_copy(update={"temperature": 0})), ("sampled", sampling)):
            pairs = [(a.text, b.text) for x, y in zip(together(asked), one_by_one(asked), strict=True)
                     for a, b in zip(x, y, strict=True)]  # fmt: skip
            equal[name] = sum(a == b for a, b in pairs) / len(pairs)
        seconds = {way: fastest_s(partial(way, sampling), self.device) for way in (together, one_by_one)}
        found = {"together_s": seconds[together], "one_by_one_s": seconds[one_by_one], "equal_texts": equal}
        shown = ", ".join(f"{share:.1%} of {name} texts equal" for name, share in equal.items())
        times = f"together {seconds[together]:.3f} s, one by one {seconds[one_by_one]:.3f} s"
        return f"- {times}: {seconds[one_by_one] / seconds[together]:.2f} times; {shown}\n", found

    def speculation(self) -> tuple[str, Any]:
        """Two strengths, few rows: where a draft is meant to help."""
        near = random_checkpoints(self.models.with_name(f"{self.models.name}-near"), self.shape, self.device, NEAR)
        engine = TransformersEngine(near, self.shape.dtype, self.device)
        batches = [rows for rows in (1, 4, 16) if rows <= max(self.shape.rows)]
        found = list(compare(engine, self.shape, (0.5, 1.0), (4,), batches, self.shape.rounds))
        return "".join(["```\n", HEAD, *(f"\n{line}" for line in found), "\n```\n"]), [asdict(line) for line in found]

    def generate(self) -> tuple[str, Any]:
        """Plain `generate()` of the base at the same batches; the fastest of a few calls."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        path, new = self.checkpoints["base"].path, self.shape.new_tokens
        model = (
            AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, self.shape.dtype)).to(self.device).eval()
        )
        tokenizer = AutoTokenizer.from_pretrained(path)
        sampling = {"do_sample": True, "top_p": 0.9, "top_k": 0, "min_new_tokens": new, "max_new_tokens": new}
        rates = {}
        for rows in self.shape.rows:
            prompts, asked = self.batch(rows)
            texts = [prompt.text for prompt in prompts]
            inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False).to(self.device)
            complete = partial(model.generate, **inputs, **sampling, num_return_sequences=asked.samples)
            rates[rows] = rows * new / fastest_s(complete, self.device)
        return "".join(f"- batch {rows}: {rate:,.0f} tokens/s\n" for rows, rate in rates.items()), rates


def markdown(table: Table) -> str:
    title, table.title, table.box = table.title, None, box.MARKDOWN
    return f"{title}:\n\n{printed(table)}\n"


# ---------------------------------------------------------------------------------------------- command


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder for the results")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--shape",
        choices=SHAPES,
        default="large",
        help="large: GPT-2 Large; llama: a Llama of 1 billion parameters, its experts LoRA adapters; tiny...",
    )
    parser.add_argument("--timeout-s", type=float, default=600, help="limit of one part")
    parser.add_argument(
        "--one-process", action="store_true", help="all parts in this process: libraries are imported once (no limit)"
    )
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and engines.device() != "cuda":
        print("gpu-check: no CUDA GPU here; `--device cpu --shape tiny` checks the script itself on vLLM's CPU build")
        return 2
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.part is None:
        return run_all(chosen)
    run_part(chosen.part, chosen)
    return 0


def run_part(part: str, chosen: argparse.Namespace) -> None:
    set_environment()
    models = Path(tempfile.gettempdir()) / "lerpbench-random" / chosen.shape
    text, values = Check(SHAPES[chosen.shape], models, chosen.device).run(part)
    (chosen.out / f"{part}.md").write_text(text)
    (chosen.out / f"{part}.json").write_text(json.dumps(values, indent=1) + "\n")


def run_here(part: str, chosen: argparse.Namespace) -> str | None:
    """Run one part in this process.  Returns what went wrong, or None."""
    import torch

    try:
        run_part(part, chosen)
        return None
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        gc.collect()
        if chosen.device == "cuda":
            with suppress(RuntimeError):  # of a device that the part has broken
                torch.cuda.empty_cache()


def run_all(chosen: argparse.Namespace) -> int:
    """Each part in a process of its own, or all in this one; the report after each.  Returns 1 if one failed."""
    about = engines.machine() | asdict(SHAPES[chosen.shape])
    head = "# GPU check\n\n" + "".join(f"- {name}: {value}\n" for name, value in about.items())
    failed = False
    for part in chosen.only:
        started = perf_counter()
        error = run_here(part, chosen) if chosen.one_process else run_child(part, chosen)
        print(f"gpu-check: {part}: {error or 'done'} in {perf_counter() - started:.0f} s", flush=True)
        if error is not None:
            failed = True
            (chosen.out / f"{part}.md").write_text(f"FAILED: {error}\n")
        there = [(name, path) for name in PARTS if (path := chosen.out / f"{name}.md").is_file()]
        report = "\n".join([head, *(f"## {name}\n\n{path.read_text()}" for name, path in there)])
        (chosen.out / "gpu-check.md").write_text(report)
    print(report)
    return int(failed)


def run_child(part: str, chosen: argparse.Namespace) -> str | None:
    """Run one part; its output goes to DIR/PART.log.  Returns what went wrong, or None."""
    options = {"part": part, "out": chosen.out, "device": chosen.device, "shape": chosen.shape}
    command = [sys.executable, "-m", "tools.gpu_check", *(f"--{name}={value}" for name, value in options.items())]
    log = chosen.out / f"{part}.log"
    with log.open("w") as file:
        try:
            code = subprocess.run(command, stdout=file, stderr=file, timeout=chosen.timeout_s, check=False).returncode
        except subprocess.TimeoutExpired:
            return f"took longer than {chosen.timeout_s:g} s; its log is {log}"
    last = (log.read_text(errors="replace").strip() or "(empty)").splitlines()[-1]
    return None if code == 0 else f"exit status {code}; its log {log} ends: {last[:300]}"


if __name__ == "__main__":
    sys.exit(main())
