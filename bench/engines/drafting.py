"""Pure: what a draft gives in time, by how often its tokens are accepted, and so how many to draft."""

MOST = 16  # tokens drafted at once
EACH = 0.2  # passes that a further token in a member's pass is taken to cost: cautious on a CPU, and more so on a GPU


def times_as_quick(acceptance: float, k: int, members: int, each: float = 0.0) -> float:
    """As the ensemble alone, where a pass over n tokens takes as long as 1 + each (n - 1) over a single token.

    m (1 - a^(k+1)) / (1 - a) / (m (1 + each k) + k): one block is a pass of each of m members over k + 1 tokens and k
    passes of the draft, which costs what a member does, and gives that many tokens (Leviathan, Kalman and Matias 2023,
    arXiv 2211.17192, theorem 3.8, with c = 1 / m).
    """
    return members * sum(acceptance**i for i in range(k + 1)) / (members * (1 + each * k) + k)


def best_k(acceptance: float, members: int) -> int:
    """The number of tokens to draft that gives most; the smallest of equals."""
    return max(range(1, MOST + 1), key=lambda k: times_as_quick(acceptance, k, members, EACH))
