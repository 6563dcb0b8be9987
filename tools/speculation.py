"""Speculative DExperts against plain DExperts: time and acceptance, side by side.

python -m tools.speculation --checkpoints DIR     (random GPT-2s are made there where none are)

Rounds go plain, speculative, plain, ...; a ratio is the median over rounds of seconds a token: of the CPU, which other
processes disturb less, or on a GPU (`--device cuda`) of the clock on the wall.  `predicted`:
`bench.engines.drafting.times_as_quick`, by what an ensemble is taken to cost there.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.engines.drafting import times_as_quick
from bench.engines.speculative import SpeculativeModel
from bench.engines.transformers import TransformersEngine
from bench.schema import Draft, Prompt, Recipe, Sampling
from bench.serving import ServedModel
from tools.random_models import SHAPES, Shape, random_checkpoints, random_prompts

HEAD = "alpha  k  batch  acceptance  plain, with a draft (tokens/s)  times as quick (rounds)  predicted"
NEAR = 0.0001  # sd of the step of experts that are near the base, whose parameters have 0.1


@dataclass(frozen=True)
class Compared:
    """One alpha, number of drafted tokens and batch size."""

    alpha: float
    k: int
    rows: int
    acceptance: float
    ensemble: float  # steps of a member that one of the ensemble is taken to cost
    plain_s: list[float]  # a token, of each round
    drafted_s: list[float]

    def __str__(self) -> str:
        ratios = [plain / drafted for plain, drafted in zip(self.plain_s, self.drafted_s, strict=True)]
        return (
            f"{self.alpha:5g} {self.k:2} {self.rows:6}  {self.acceptance:10.3f}  {1 / median(self.plain_s):,.1f}, "
            f"{1 / median(self.drafted_s):,.1f}  {median(ratios):.2f} ({' '.join(f'{r:.2f}' for r in ratios)})  "
            f"{times_as_quick(self.acceptance, self.k, self.ensemble):.2f}"
        )


def compare(
    engine: TransformersEngine, shape: Shape, alphas: Sequence[float], ks: Sequence[int], batches: Sequence[int],
    rounds: int,
) -> Iterator[Compared]:  # fmt: skip
    for alpha in alphas:
        mixed = {"base": 1.0, "expert": alpha, "antiexpert": -alpha}
        for k in ks:
            plain = engine.serve(Recipe(space="logits", coefficients=mixed))
            drafted = engine.serve(Recipe(space="logits", coefficients=mixed, draft=Draft(coefficients=mixed, k=k)))
            assert isinstance(drafted, SpeculativeModel)
            for rows in batches:
                prompts = random_prompts(rows, shape)
                if engine.device != "cpu":  # captures its graphs
                    for model in (plain, drafted):
                        model.decode(prompts, Sampling(samples=1, max_new_tokens=shape.new_tokens))
                drafted.accepted = drafted.judged = 0
                plain_s, drafted_s = [], []
                for seed in range(rounds):
                    sampling = Sampling(samples=1, max_new_tokens=shape.new_tokens, seed=seed)
                    plain_s.append(seconds(plain, prompts, sampling, engine.device))
                    drafted_s.append(seconds(drafted, prompts, sampling, engine.device))
                yield Compared(alpha, k, rows, drafted.acceptance or 0.0, drafted.ensemble_steps, plain_s, drafted_s)


def seconds(model: ServedModel, prompts: list[Prompt], sampling: Sampling, device: str) -> float:
    """A token."""
    clock = time.process_time if device == "cpu" else time.perf_counter  # what is decoded has come to the host
    started = clock()
    drawn = model.decode(prompts, sampling)
    return (clock() - started) / drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.5, 1.0])
    parser.add_argument("--k", type=int, nargs="+", default=[4])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--step", type=float, default=0.002, help="sd of the experts' step; the base's parameters: 0.1")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    shape = SHAPES[asked.shape]
    checkpoints = random_checkpoints(asked.checkpoints, shape, asked.device, asked.step)
    engine = TransformersEngine(checkpoints, shape.dtype, asked.device)
    print(f"shape {asked.shape}, {shape.dtype}, load {os.getloadavg()[0]:.1f}")
    print(HEAD)
    for compared in compare(engine, shape, asked.alpha, asked.k, asked.batch, asked.rounds):
        print(compared, flush=True)


if __name__ == "__main__":
    main()
