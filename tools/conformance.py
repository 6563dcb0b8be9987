"""Same name, same method?  `python -m tools.conformance MERGEKIT-YAML` merges the packaged models there and here.

mergekit lives in an environment of its own: its command `mergekit-yaml` is called, its merged files are read and
compared tensor by tensor with what `bench.engines.mixing` makes of the same files; the distance between the two models'
next tokens is measured on the packaged prompts.  With --write it writes docs/CONFORMANCE.md.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from bench import environment
from bench.engines.mixing import mix_tensors
from bench.engines.transformers import TransformersEngine
from bench.schema import PromptSource, Recipe
from bench.suite.checkpoints import Checkpoint, digests, open_tensors, resolve
from bench.suite.prompts import load_set
from evaluators.contexts import divergence
from methods.arithmetic import TaskArithmetic
from methods.base import merged
from methods.interpolation import G1, G2
from methods.model_stock import ModelStock
from methods.slerp import Slerp

PAGE = Path(__file__).parent.parent / "docs" / "CONFORMANCE.md"
BOTH = {"base": 1.0, "expert": 1.0, "antiexpert": 1.0}
ONE = {"base": 1.0, "expert": 1.0}
TOLERANCE = 1e-6  # of the update: what the order of float32 sums may change


@dataclass(frozen=True)
class Case:
    """A mixture as both sides name it: mergekit's method, models with their parameters and options; our recipe."""

    name: str
    method: str
    models: Mapping[str, Mapping[str, float]]
    recipe: Recipe
    base: str | None = "base"
    options: Mapping[str, Any] = field(default_factory=dict)
    drawn: float | None = None  # the density, where elements are drawn at random
    remark: str = ""


def pair(density: float, **more: float) -> dict[str, dict[str, float]]:
    """Both experts with weight 1."""
    given = {"weight": 1.0, "density": density, **more}
    return {"expert": given, "antiexpert": given}


CASES = (
    Case("g1(0.7)", "linear", {"expert": {"weight": 0.7}, "antiexpert": {"weight": 0.3}}, G1(alpha=0.7).recipe(),
         base=None, options={"normalize": False}),
    Case("g2(0.5)", "task_arithmetic", {"expert": {"weight": 0.5}, "antiexpert": {"weight": -0.5}},
         G2(alpha=0.5).recipe(), options={"normalize": False}),
    Case("task_arithmetic(0.8)", "task_arithmetic", {"expert": {"weight": 0.8}}, TaskArithmetic(alpha=0.8).recipe(),
         options={"normalize": False}),
    Case("slerp(0.3)", "slerp", {"expert": {}}, Slerp(alpha=0.3).recipe(), base="antiexpert", options={"t": 0.3},
         remark="where the cosine exceeds 0.9995 mergekit takes the straight line, here the arc is followed"),
    Case("ties, all kept", "ties", pair(1.0), merged("ties", of=BOTH, density=1.0, trim="tensor"),
         options={"normalize": True},
         remark="where the two cancel exactly mergekit takes the positive one, here, as in algorithm 1, neither"),
    Case("ties, a fifth kept", "ties", pair(0.2), merged("ties", of=BOTH, density=0.2, trim="tensor"),
         options={"normalize": True},
         remark="where magnitudes are equal at the edge mergekit keeps some of them, here all are kept, as by the "
         "paper's code; the packaged models are float16, so that many are equal"),
    Case("breadcrumbs", "breadcrumbs", pair(0.59, gamma=0.01),
         merged("breadcrumbs", of=BOTH, bottom=0.4, top=0.01), options={"normalize": False},
         remark="at the edges equal magnitudes are taken in another order"),
    Case("model_stock(0.5)", "model_stock", {"expert": {}, "antiexpert": {}}, ModelStock().recipe(),
         remark="the cosine is computed in float32 there, in float64 here"),
    Case("dare, half kept", "dare_linear", {"expert": {"weight": 1.0, "density": 0.5}},
         merged("dare", 0, of=ONE, density=0.5, consensus="sum"), options={"normalize": False}, drawn=0.5),
    Case("della, half kept", "della_linear", {"expert": {"weight": 1.0, "density": 0.5, "epsilon": 0.1}},
         merged("della", 0, of=ONE, density=0.5, epsilon=0.2), options={"normalize": False}, drawn=0.5,
         remark="mergekit's epsilon is half the paper's"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mergekit", help="the command mergekit-yaml of mergekit's environment")
    parser.add_argument("--write", action="store_true", help="write docs/CONFORMANCE.md; else print")
    chosen = parser.parse_args()
    checkpoints = {name: resolve(f"mini:{name}") for name in ("base", "expert", "antiexpert")}
    with tempfile.TemporaryDirectory() as folder:
        theirs = {case.name: merge(case, chosen.mergekit, checkpoints, Path(folder)) for case in CASES}
        page = report(checkpoints, theirs, mergekit_version(chosen.mergekit))
    if chosen.write:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page)


# ---------------------------------------------------------------------------------------------- both sides


def merge(case: Case, command: str, checkpoints: Mapping[str, Checkpoint], folder: Path) -> Path:
    """Let mergekit merge a case.  Returns the merged model's folder."""
    config: dict[str, Any] = {
        "merge_method": case.method,
        "models": [{"model": str(checkpoints[m].path), "parameters": dict(p)} for m, p in case.models.items()],
        "parameters": dict(case.options),
        "dtype": "float32",
    }
    if case.base is not None:
        config["base_model"] = str(checkpoints[case.base].path)
    target = folder / case.name.replace(" ", "_")
    recipe = folder / "merge.yaml"
    recipe.write_text(yaml.safe_dump(config))
    asked = [command, str(recipe), str(target), "--random-seed", "0"]
    done = subprocess.run(asked, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{case.name}: mergekit failed:\n{done.stderr[-2000:]}")
    return target


def mergekit_version(command: str) -> str:
    python = Path(command).parent / "python"
    show = "from importlib.metadata import version as v; print(v('mergekit'), v('torch'), v('transformers'))"
    found = subprocess.run([str(python), "-c", show], capture_output=True, text=True, check=True).stdout.split()
    return f"mergekit {found[0]} (torch {found[1]}, transformers {found[2]})"


def tensors(folder: Path) -> dict[str, Tensor]:
    """Parameter name -> tensor, float32."""
    return {name: read().float() for name, read in open_tensors(folder).items()}


def mixture(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> dict[str, Tensor]:
    """Our mixture of the files."""
    parts = {name: tensors(checkpoints[name].path) for name in recipe.coefficients}
    names = list(next(iter(parts.values())))
    return dict(mix_tensors(recipe, digests(checkpoints), names, lambda m, name: parts[m][name].clone()))


def kl(a: TransformersEngine, b: Path, recipe: Recipe, like: Checkpoint) -> float:
    """KL(ours || theirs) of the next token after the packaged neutral prompts, mean, nats."""
    prompts = load_set("neutral", PromptSource(source="mini:prompts/neutral"))
    texts = [prompt.text for prompt in prompts]
    ours = a.serve(recipe).next_token_logprobs(texts).astype(np.float64)
    other = TransformersEngine({"base": like.model_copy(update={"path": b})}, "float32", "cpu")
    theirs = other.serve(Recipe(space="weights", coefficients={"base": 1})).next_token_logprobs(texts)
    return float(divergence(ours, theirs.astype(np.float64)).mean())


# ---------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True)
class Agreement:
    """Two mixtures of the same files: how many tensors are equal in every bit, and |ours - theirs| / |ours - base|."""

    equal: int
    total: int
    largest: float
    of_update: float


def compare(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Agreement:
    if ours.keys() != theirs.keys():
        sys.exit(f"only one side has the tensors {sorted(ours.keys() ^ theirs.keys())}")
    apart = {name: (ours[name].double() - theirs[name].double()) for name in ours}
    update = sum(float((ours[name].double() - base[name].double()).square().sum()) for name in ours)
    return Agreement(
        equal=sum(torch.equal(ours[name], theirs[name]) for name in ours),
        total=len(ours),
        largest=max(float(difference.abs().max()) for difference in apart.values()),
        of_update=(sum(float(d.square().sum()) for d in apart.values()) / update) ** 0.5,
    )


@dataclass(frozen=True)
class Drawn:
    """A mixture whose elements are drawn: the share of tau that is left, and what the rest was multiplied by."""

    kept: float
    lowest: float
    median: float
    highest: float


def drawn(mixed: Mapping[str, Tensor], base: Mapping[str, Tensor], expert: Mapping[str, Tensor]) -> Drawn:
    scales, kept, total = [], 0, 0
    for name in mixed:
        tau, left = expert[name].double() - base[name], mixed[name].double() - base[name]
        there = tau.abs() > 1e-4 * tau.abs().max()  # smaller ones drown in the rounding of base + tau
        alive = there & (left.abs() > 0.1 * tau.abs())
        kept, total = kept + int(alive.sum()), total + int(there.sum())
        scales.append((left[alive] / tau[alive]).flatten())
    found = torch.cat(scales)
    low, middle, high = (float(np.quantile(found.numpy(), q)) for q in (0.01, 0.5, 0.99))
    return Drawn(kept / total, low, middle, high)


# ---------------------------------------------------------------------------------------------- page


def report(checkpoints: Mapping[str, Checkpoint], theirs: Mapping[str, Path], version: str) -> str:
    engine = TransformersEngine(checkpoints, "float32", "cpu")
    base, expert = tensors(checkpoints["base"].path), tensors(checkpoints["expert"].path)
    sure, random = [], []
    for case in CASES:
        ours, other = mixture(case.recipe, checkpoints), tensors(theirs[case.name])
        divergence = kl(engine, theirs[case.name], case.recipe, checkpoints["base"])
        if case.drawn is None:
            sure.append(sure_row(case, compare(ours, other, base), divergence))
        else:
            random += [drawn_row(case, side, drawn(mixed, base, expert)) for side, mixed in
                       (("here", ours), ("mergekit", other))]  # fmt: skip
    return PAGE_TEXT.format(version=version, machine=machine(), sure="\n".join(sure), random="\n".join(random),
                            remarks="\n".join(f"- {c.name}: {c.remark}." for c in CASES if c.remark))  # fmt: skip


def sure_row(case: Case, found: Agreement, divergence: float) -> str:
    verdict = "the same" if found.of_update < TOLERANCE else "alike" if found.of_update < 0.1 else "another method"
    cells: Sequence[str] = (
        case.name, f"`{case.method}`", f"{found.equal} of {found.total}", f"{found.largest:.1e}",
        f"{found.of_update:.1e}", f"{max(divergence, 0):.1e}", verdict,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def drawn_row(case: Case, side: str, found: Drawn) -> str:
    scales = f"{found.lowest:.3f}, {found.median:.3f}, {found.highest:.3f}"
    return f"| {case.name} | {side} | {found.kept:.3f} | {scales} |"


def machine() -> str:
    details = environment.describe("cpu", torch.get_num_threads())
    packages = ", ".join(f"{name} {details['packages'][name]}" for name in ("torch", "transformers"))
    return f"{details['processor']}, {packages}, {date.today()}"


PAGE_TEXT = """# Same name, same method?

mergekit and lerpbench merge the packaged models by the methods that both know, in float32, and the results are compared
tensor by tensor. Written by

```
python -m venv mergekit-env && mergekit-env/bin/pip install mergekit==0.1.5
python -m tools.conformance mergekit-env/bin/mergekit-yaml --write
```

with {version} in its own environment; here {machine}.

| here | mergekit | equal tensors | largest difference | difference / update | KL, nats | verdict |
|---|---|---|---|---|---|---|
{sure}

*Equal tensors* are equal bit for bit. *Difference / update* is the norm of ours - theirs over that of ours - base, all
tensors together; below one millionth it is the order of float32 sums (*the same*), below a tenth the methods are
*alike*. *KL* is KL(ours, theirs) of the next token, mean over the packaged neutral prompts. TIES merges both experts
with weight 1 each, as in the paper, and mergekit's `normalize: true`. With steering's weights 1 and -1 mergekit divides
by the sum of the signed weights, which turns the anti-expert's share around: there the two cannot be compared.

## Drawn elements
The two draw other random numbers, so what is compared is how many elements of one expert's task vector are left, and
what these were multiplied by: the 1st percentile, the median and the 99th.

| here | side | share left | multiplied by |
|---|---|---|---|
{random}

DARE's paper multiplies by 1 / density. mergekit's `rescale: true` multiplies each tensor so that the sum of its
magnitudes is what it was: for elements drawn alike that comes to nearly the same; DELLA's, drawn by size, all get one
factor, so that an element's mean over draws is not the element.

## What explains the differences
{remarks}

PEFT combines LoRA adapters, not whole checkpoints, and is not compared.
"""


if __name__ == "__main__":
    main()
