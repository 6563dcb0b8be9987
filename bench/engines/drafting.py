"""Pure: what a draft gives in time, by how often its tokens are accepted, and so how many to draft."""

MOST = 16  # tokens drafted at once
EACH = 0.2  # passes that a further token in a member's pass is taken to cost: cautious on a CPU, and more so on a GPU
BESIDE = 0.2  # steps of one that each further member takes where they run side by side (docs/SPEED.md, on a GPU)


def ensemble_steps(members: int, side_by_side: bool) -> float:
    """What a step of an ensemble is taken to cost, in steps of one member."""
    return 1 + BESIDE * (members - 1) if side_by_side else float(members)


def times_as_quick(acceptance: float, k: int, ensemble: float, each: float = 0.0) -> float:
    """As the ensemble alone, where a pass over n tokens takes as long as 1 + each (n - 1) over a single token.

    c (1 - a^(k+1)) / (1 - a) / (c (1 + each k) + k), c the steps of the draft that a step of the `ensemble` takes: one
    block is a pass of the ensemble over k + 1 tokens and k steps of the draft, and gives that many tokens (Leviathan,
    Kalman and Matias 2023, arXiv 2211.17192, theorem 3.8, whose c is the inverse).
    """
    return ensemble * sum(acceptance**i for i in range(k + 1)) / (ensemble * (1 + each * k) + k)


def best_k(acceptance: float, ensemble: float) -> int:
    """The number of tokens to draft that gives most, the smallest of equals; 0 where no draft pays."""
    return max(range(MOST + 1), key=lambda k: times_as_quick(acceptance, k, ensemble, EACH))
