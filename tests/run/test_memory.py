"""What models take, by hand."""

from pathlib import Path

import lerpbench
from bench.run.memory import ROWS, needed, parameters


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
    assert found.cache % (ROWS * per_token) == 0 and found.cache >= ROWS * per_token * (longest + 6)
    assert found.total == found.anchors + found.served + found.members + found.cache
    weights_alone = needed(lerpbench.prepare(str(tiny_suite), "transformers", ["g1"]), "cpu")
    assert weights_alone.members == 0 and weights_alone.cache == found.cache / 3
