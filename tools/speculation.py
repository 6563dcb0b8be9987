"""Speculative DExperts against plain DExperts: time and acceptance, side by side.

python -m tools.speculation --checkpoints DIR     (random GPT-2s are made there where none are)

Rounds go plain, speculative, plain, ...; a ratio is the median over rounds of CPU seconds a token, which other
processes disturb less than the clock on the wall.  `predicted`: `bench.engines.drafting.times_as_quick`.
"""

import argparse
import os
import time
from pathlib import Path
from statistics import median

from bench.engines.drafting import times_as_quick
from bench.engines.speculative import SpeculativeModel
from bench.engines.transformers import TransformersEngine
from bench.schema import Draft, Prompt, Recipe, Sampling
from bench.serving import ServedModel
from tools.random_models import SHAPES, random_checkpoints, random_prompts


def seconds(model: ServedModel, prompts: list[Prompt], sampling: Sampling) -> float:
    """CPU seconds a token."""
    started = time.process_time()
    drawn = model.decode(prompts, sampling)
    return (time.process_time() - started) / drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.5, 1.0])
    parser.add_argument("--k", type=int, nargs="+", default=[4])
    parser.add_argument("--step", type=float, default=0.002, help="sd of the experts' step; the base's parameters: 0.1")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    shape = SHAPES[asked.shape]
    engine = TransformersEngine(random_checkpoints(asked.checkpoints, shape, "cpu", asked.step), shape.dtype, "cpu")
    print(f"shape {asked.shape}, {shape.dtype}, load {os.getloadavg()[0]:.1f}")
    print("alpha  k  batch  acceptance  times as quick (rounds)  predicted")
    for alpha in asked.alpha:
        mixed = {"base": 1.0, "expert": alpha, "antiexpert": -alpha}
        for k in asked.k:
            plain = engine.serve(Recipe(space="logits", coefficients=mixed))
            drafted = engine.serve(Recipe(space="logits", coefficients=mixed, draft=Draft(coefficients=mixed, k=k)))
            assert isinstance(drafted, SpeculativeModel)
            for rows in shape.rows:
                prompts = random_prompts(rows, shape)
                ratios = []
                drafted.accepted = drafted.judged = 0
                for seed in range(asked.rounds):
                    sampling = Sampling(samples=1, max_new_tokens=shape.new_tokens, seed=seed)
                    ratios.append(seconds(plain, prompts, sampling) / seconds(drafted, prompts, sampling))
                shown = " ".join(f"{ratio:.2f}" for ratio in ratios)
                accepted = drafted.acceptance or 0.0
                print(f"{alpha:5g} {k:2} {rows:6}  {accepted:10.3f}  {median(ratios):.2f} ({shown})  "
                      f"{times_as_quick(accepted, k, members=3):.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
