"""Same name, same method?  `python -m tools.conformance MERGEKIT-YAML` merges the packaged models there and here.

mergekit lives in an environment of its own: its command `mergekit-yaml` is called, its merged files are read and
compared tensor by tensor with what `bench.engines.mixing` makes of the same files.  PEFT's combinations of adapters
follow (`tools.peft_merges`).  Both models' next tokens are compared on the packaged prompts, and the packaged judges
judge what both write.  With --write it writes docs/CONFORMANCE.md.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from bench import environment
from bench.engines.mixing import mix_tensors
from bench.engines.transformers import TransformersEngine
from bench.schema import PromptSource, Recipe, Sampling
from bench.serving import ServedModel
from bench.suite.checkpoints import Checkpoint, digests, open_tensors, resolve
from bench.suite.prompts import load_set
from evaluators.acceptability import Acceptability
from evaluators.base import Samples
from evaluators.contexts import divergence
from evaluators.distinct import Distinct
from evaluators.judges import Judges
from evaluators.perplexity import Perplexity
from evaluators.sentiment import Sentiment
from methods.arithmetic import TaskArithmetic
from methods.base import merged
from methods.interpolation import G1, G2
from methods.model_stock import ModelStock
from methods.slerp import Slerp
from tools import peft_merges

PAGE = Path(__file__).parent.parent / "docs" / "CONFORMANCE.md"
BOTH = {"base": 1.0, "expert": 1.0, "antiexpert": 1.0}
ONE = {"base": 1.0, "expert": 1.0}
TOLERANCE = 1e-5  # of the update: what the order of float32 sums may change


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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        merges = [Merged(case.name, case.recipe, merge(case, chosen.mergekit, checkpoints, folder), checkpoints)
                  for case in CASES]  # fmt: skip
        page = report(merges, peft_merged(checkpoints, folder), mergekit_version(chosen.mergekit))
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


def peft_merged(checkpoints: Mapping[str, Checkpoint], folder: Path) -> list["Merged"]:
    """PEFT's combinations of the experts' adapters, beside ours of the same adapters as checkpoints."""
    found = peft_merges.adapters(checkpoints, folder)
    mine = peft_merges.as_checkpoints(checkpoints["base"], found, folder)
    return [Merged(case.type, case.recipe, peft_merges.combined(case, mine["base"], found, folder), mine)
            for case in peft_merges.COMBINATIONS]  # fmt: skip


@dataclass(frozen=True)
class Merged:
    """One mixture on both sides: the recipe of our checkpoints, and the folder of the other tool's model."""

    name: str
    recipe: Recipe
    folder: Path
    checkpoints: Mapping[str, Checkpoint]

    def served(self) -> tuple[ServedModel, ServedModel]:
        """Ours and theirs, each in an engine of its own."""
        alone = self.checkpoints["base"].model_copy(update={"path": self.folder})
        other = TransformersEngine({"base": alone}, "float32", "cpu").serve(BASE)
        return TransformersEngine(self.checkpoints, "float32", "cpu").serve(self.recipe), other

    def agreement(self) -> "Agreement":
        base = tensors(self.checkpoints["base"].path)
        return compare(mixture(self.recipe, self.checkpoints), tensors(self.folder), base)


PROMPTS = load_set("neutral", PromptSource(source="mini:prompts/neutral"))
BASE = Recipe(space="weights", coefficients={"base": 1})
JUDGES = (
    Sentiment(model="mini:sentiment"),
    Acceptability(model="mini:acceptability"),
    Perplexity(model="mini:judge"),
    Distinct(),
)
METRICS = ("sentiment", "acceptability", "perplexity", "distinct_2")


def kl(ours: ServedModel, theirs: ServedModel) -> float:
    """KL(ours || theirs) of the next token after the packaged neutral prompts, mean, nats."""
    texts = [prompt.text for prompt in PROMPTS]
    p, q = (model.next_token_logprobs(texts).astype(np.float64) for model in (ours, theirs))
    return float(divergence(p, q).mean())


def judged(model: ServedModel, judges: Judges, seed: int = 0) -> dict[str, float]:
    """Each of METRICS over four completions of every prompt; equal models write the same."""
    samples = Samples(PROMPTS, model.generate(PROMPTS, Sampling(samples=4, seed=seed)))
    everything = np.ones(len(PROMPTS), dtype=bool)
    summaries = [s for evaluator in JUDGES for s in evaluator.judge(samples, judges).summaries]
    found = {s.metric: s.estimate(everything, None).value for s in summaries if s.metric in METRICS}
    return {name: float("nan") if value is None else value for name, value in found.items()}


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


def report(mergekit: Sequence[Merged], peft: Sequence[Merged], tool: str) -> str:
    judges, rows = Judges(), dict[str, list[str]](sure=[], random=[], peft=[], metrics=[])
    base, expert = (tensors(mergekit[0].checkpoints[name].path) for name in ("base", "expert"))
    for case, one in zip(CASES, mergekit, strict=True):
        ours, other = one.served()
        if case.drawn is None:
            rows["sure"].append(sure_row(case.name, case.method, one.agreement(), kl(ours, other)))
        else:
            for side, mixed in (("here", mixture(case.recipe, one.checkpoints)), ("mergekit", tensors(one.folder))):
                rows["random"].append(drawn_row(case, side, drawn(mixed, base, expert)))
        rows["metrics"].append(metric_row(f"{case.name}, mergekit", judged(ours, judges), judged(other, judges)))
    for of, one in zip(peft_merges.COMBINATIONS, peft, strict=True):
        ours, other = one.served()
        name = of.recipe.rule.name if of.recipe.rule else "g1(0.7)"
        verdict = "other draws" if of.drawn else None
        rows["peft"].append(sure_row(name, of.type, one.agreement(), kl(ours, other), verdict))
        rows["metrics"].append(metric_row(f"{of.type}, PEFT", judged(ours, judges), judged(other, judges)))
    model, _ = mergekit[1].served()
    chance = metric_row(f"{CASES[1].name}, another seed here", judged(model, judges), judged(model, judges, seed=1))
    rows["metrics"].append(chance)
    tables = {name: "\n".join(lines) for name, lines in rows.items()}
    remarks = "\n".join(f"- {c.name}: {c.remark}." for c in CASES if c.remark)
    return PAGE_TEXT.format(version=tool, machine=machine(), remarks=remarks, rank=peft_merges.RANK,
                            samples=4 * len(PROMPTS), **tables)  # fmt: skip


def sure_row(name: str, method: str, found: Agreement, divergence: float, verdict: str | None = None) -> str:
    agrees = "the same" if found.of_update < TOLERANCE else "alike" if found.of_update < 0.1 else "another method"
    cells: Sequence[str] = (
        name, f"`{method}`", f"{found.equal} of {found.total}", f"{found.largest:.1e}",
        f"{found.of_update:.1e}", f"{max(divergence, 0):.1e}", verdict or agrees,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def metric_row(name: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """Each metric here, and how much higher it is there."""
    cells = [f"{ours[metric]:.4g}, {theirs[metric] - ours[metric]:+.2g}" for metric in METRICS]
    return f"| {name} | {' | '.join(cells)} |"


def drawn_row(case: Case, side: str, found: Drawn) -> str:
    scales = f"{found.lowest:.3f}, {found.median:.3f}, {found.highest:.3f}"
    return f"| {case.name} | {side} | {found.kept:.3f} | {scales} |"


def machine() -> str:
    details = environment.describe("cpu", torch.get_num_threads())
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    return f"{details['processor']}, {packages}, {date.today()}"


PAGE_TEXT = """# Same name, same method?

mergekit, PEFT and lerpbench merge the packaged models by the methods that they know by one name, in float32; the
results are compared tensor by tensor, and by what the packaged judges say of what they write. Written by

```
python -m venv mergekit-env && mergekit-env/bin/pip install mergekit==0.1.5
python -m tools.conformance mergekit-env/bin/mergekit-yaml --write
```

with {version} in its own environment; here {machine}.

| here | mergekit | equal tensors | largest difference | difference / update | KL, nats | verdict |
|---|---|---|---|---|---|---|
{sure}

*Equal tensors* are equal bit for bit. *Difference / update* is the norm of ours - theirs over that of ours - base,
all tensors together; below 1e-5 it is the order of float32 sums (*the same*), below a tenth the methods are *alike*.
*KL* is KL(ours, theirs) of the next token, mean over the packaged neutral prompts. TIES merges both experts with
weight 1 each, as in the paper, and mergekit's `normalize: true`. With steering's weights 1 and -1 mergekit divides by
the sum of the signed weights, which turns the anti-expert's share around: there the two cannot be compared.

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

## PEFT's combinations of LoRA adapters
The adapters are the packaged experts' task vectors, in every linear layer cut to rank {rank} by SVD. There
`add_weighted_adapter` combines them (weights 0.7 and 0.3 for `cat` and `linear`, else 1 and 1; density 0.5) and PEFT
merges the outcome; here each adapter becomes a checkpoint, and checkpoints are mixed.

| here | PEFT | equal tensors | largest difference | difference / update | KL, nats | verdict |
|---|---|---|---|---|---|---|
{peft}

PEFT's `linear`, `ties`, `dare_linear`, `dare_ties` and `magnitude_prune` combine the halves: all A with each other
and all B with each other. Their product holds B of one adapter times A of another, and depends on how each update was
split into halves, which is arbitrary. `cat` and the types that end in `_svd` combine the updates B A themselves, as
the papers do, and as is done here. (`dare_*` draw other elements on both sides, so that a difference is no verdict on
the name alone.)

## The change of every metric
Each metric of {samples} completions here, and how much higher it is for the other tool's model; the noise is shared,
so that equal models write the same texts. The last line is chance: one model, two seeds.

| merge | sentiment | acceptability | perplexity | distinct-2 |
|---|---|---|---|---|
{metrics}
"""


if __name__ == "__main__":
    main()
