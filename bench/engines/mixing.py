"""What a weights recipe makes of each tensor: the plain sum, or a rule (SLERP, TIES, DARE, ...); pure functions.

An engine gives the tensors' names and a function that reads one tensor of one checkpoint, and gets the mixture's
tensors one by one, so that no more than one tensor of every member is held for a rule.  With tau_i = theta_i - theta_0
the task vector of member i and c_i its coefficient, most rules are theta_0 + the sum, or a mean, of what they keep of
c_i tau_i.

A random number is a hash of (seed, member's bytes, tensor's name, element): the same on every engine and device, for
every coefficient, and whatever the other members are.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.engines.sampling import GOLDEN, scramble
from bench.schema import Recipe, Rule, UserError

Read = Callable[[str, str], Tensor]  # (checkpoint, tensor's name) -> the tensor, float32

CHUNK = 1 << 22  # random numbers made at a time
HALF = 16  # bits of a float32's magnitude that one pass of `kth_largest` settles


@dataclass(frozen=True)
class Member:
    """One member's task vector for one tensor: c (theta_i - theta_0) is what a rule starts from."""

    coefficient: float
    tau: Tensor
    key: int  # of its random numbers
    threshold: float | None = None  # over all its tensors: magnitudes from this one on are kept


def mix_tensors(
    recipe: Recipe, digests: Mapping[str, str], names: Sequence[str], read: Read
) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of the mixture for every name, float32.  Raises UserError for a rule that it cannot apply."""
    rule = recipe.rule
    if rule is None:
        for name in names:
            yield name, linear(recipe.coefficients, name, read)
    elif rule.name == "slerp":
        (a, c_a), (b, c_b) = _two(recipe)
        for name in names:
            yield name, slerp(read(a, name), read(b, name), c_b / (c_a + c_b))
    else:
        yield from _merge(recipe, rule, digests, names, read)


def linear(coefficients: Mapping[str, float], name: str, read: Read) -> Tensor:
    """sum_i c_i theta_i."""
    (first, value), *rest = coefficients.items()
    mixed = read(first, name) * value
    for other, coefficient in rest:
        mixed.add_(read(other, name), alpha=coefficient)
    return mixed


def _two(recipe: Recipe) -> tuple[tuple[str, float], tuple[str, float]]:
    if len(recipe.coefficients) != 2 or not math.isclose(sum(recipe.coefficients.values()), 1):
        raise UserError(f"slerp mixes two checkpoints by coefficients that sum to 1, got {recipe.coefficients}")
    first, second = recipe.coefficients.items()
    return first, second


def _merge(
    recipe: Recipe, rule: Rule, digests: Mapping[str, str], names: Sequence[str], read: Read
) -> Iterator[tuple[str, Tensor]]:
    """theta_0 + what the rule makes of the task vectors."""
    if rule.name not in RULES or recipe.coefficients.get("base") != 1:
        what = f"mixes with coefficient 1 on base; the rules are slerp, {', '.join(RULES)}"
        raise UserError(f"rule {rule.name!r} {what}; got {recipe.coefficients}")
    members = {name: value for name, value in recipe.coefficients.items() if name != "base"}

    def task_vector(member: str, name: str) -> Tensor:
        return read(member, name) - read("base", name)

    thresholds: dict[str, float] = {}
    if rule.params.get("trim") == "global":
        kept = kept_of(sum(read("base", name).numel() for name in names), float(rule.params["density"]))
        for member in members:
            thresholds[member] = kth_largest(lambda m=member: (task_vector(m, name) for name in names), kept)  # type: ignore[misc]
    for name in names:
        base = read("base", name)
        merging = [
            Member(c, read(m, name) - base, stream(rule.seed, digests[m], name), thresholds.get(m))
            for m, c in members.items()
        ]
        yield name, base + RULES[rule.name](merging, rule)


# ---------------------------------------------------------------------------------------------- rules


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, w the angle between a and b (Shoemake 1985, section 3.3).

    The tensors keep their lengths; where they are parallel, the straight line.
    """
    x, y = a.double().flatten(), b.double().flatten()
    norms = x.norm() * y.norm()
    # Twice the half angle's tangent: exact for the small angles between fine-tunings of one model, where acos is not.
    u, v = x / x.norm(), y / y.norm()
    angle = 2 * math.atan2(float((u - v).norm()), float((u + v).norm())) if norms > 0 else 0.0
    if math.sin(angle) < 1e-9:
        return torch.lerp(a, b, t)
    first, second = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
    return (first * x + second * y).view(a.shape).float()


def ties(members: Sequence[Member], rule: Rule) -> Tensor:
    """Trim each task vector, elect each element's sign, average the members that have it (TIES, algorithm 1)."""
    return elected_mean([m.coefficient * trimmed(m, float(rule.params["density"])) for m in members])


def dare(members: Sequence[Member], rule: Rule) -> Tensor:
    """Drop elements at random, rescale what is left (DARE), and sum; or elect as TIES does."""
    density = float(rule.params["density"])
    kept = [m.coefficient * dropped(m.tau, torch.full_like(m.tau, density), m.key) for m in members]
    return elected_mean(kept) if rule.params.get("consensus") == "elect" else summed(kept)


def della(members: Sequence[Member], rule: Rule) -> Tensor:
    """Drop small elements more often than large ones, rescale by each one's odds, elect, average (DELLA)."""
    density, epsilon = float(rule.params["density"]), float(rule.params["epsilon"])
    return elected_mean(
        [m.coefficient * dropped(m.tau, keep_probabilities(m.tau, density, epsilon), m.key) for m in members]
    )


def breadcrumbs(members: Sequence[Member], rule: Rule) -> Tensor:
    """Drop each task vector's smallest and largest elements, and sum (Model Breadcrumbs)."""
    bottom, top = float(rule.params["bottom"]), float(rule.params["top"])
    return summed([m.coefficient * between(m.tau, bottom, top) for m in members])


def model_stock(members: Sequence[Member], rule: Rule) -> Tensor:
    """t sum_i c_i tau_i, t = N cos / (1 + (N - 1) cos), cos between the task vectors (Model Stock).

    For N > 2 cos is the mean over pairs.  One member is kept whole.
    """
    ratio = stock_ratio([m.tau for m in members])
    return ratio * summed([m.coefficient * m.tau for m in members])


RULES: Mapping[str, Callable[[Sequence[Member], Rule], Tensor]] = {
    "ties": ties,
    "dare": dare,
    "della": della,
    "breadcrumbs": breadcrumbs,
    "model_stock": model_stock,
}


# ---------------------------------------------------------------------------------------------- their parts


def summed(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).sum(dim=0)


def elected_mean(tensors: Sequence[Tensor]) -> Tensor:
    """Of each element: the mean over the tensors whose sign is that of the sum; 0 where the sum is 0."""
    stacked = torch.stack(list(tensors))
    agree = (stacked.sign() == stacked.sum(dim=0).sign()) & (stacked != 0)
    return (stacked * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)


def trimmed(member: Member, density: float) -> Tensor:
    """The task vector with its largest magnitudes alone: this tensor's share `density`, or those from the threshold."""
    tau, threshold = member.tau, member.threshold
    if threshold is None:
        threshold = kth_largest(lambda: [tau], kept_of(tau.numel(), density))
    return tau * (tau.abs() >= threshold)


def kept_of(size: int, density: float) -> int:
    """How many elements a share is: at least one."""
    return max(1, int(density * size))


def dropped(tau: Tensor, keep: Tensor, key: int) -> Tensor:
    """tau_i / p_i with probability p_i, else 0: its mean over seeds is tau.  keep: p, of tau's shape."""
    drawn = uniforms(tau.numel(), key, str(tau.device)).view(tau.shape)
    return torch.where(drawn < keep, tau / keep, 0.0)


def keep_probabilities(tau: Tensor, density: float, epsilon: float) -> Tensor:
    """1 - p_i, p_i = p - epsilon / 2 + epsilon r_i / n, p = 1 - density (DELLA's MAGPRUNE).

    r_i is the rank of |tau_i| in its row of n, 0 for the largest; a vector is one row.
    """
    rows = tau.abs().view(1, -1) if tau.dim() < 2 else tau.abs().flatten(0, -2)
    order = rows.argsort(dim=-1, descending=True, stable=True)
    ranks = torch.empty_like(rows).scatter_(1, order, torch.arange(rows.shape[1]).to(rows).expand_as(rows))
    return (density + epsilon / 2 - epsilon * ranks / rows.shape[1]).view(tau.shape)


def between(tau: Tensor, bottom: float, top: float) -> Tensor:
    """tau without its share `bottom` of smallest and its share `top` of largest magnitudes."""
    size = tau.numel()
    order = tau.abs().flatten().argsort(stable=True)
    kept = torch.zeros(size, dtype=torch.bool, device=tau.device)
    kept[order[int(bottom * size) : size - int(top * size)]] = True
    return tau * kept.view(tau.shape)


def stock_ratio(taus: Sequence[Tensor]) -> float:
    """t of Model Stock; a task vector of zeros stands at a right angle to all."""
    flat = [tau.double().flatten() for tau in taus]
    pairs = [(i, j) for j in range(len(flat)) for i in range(j)]
    if not pairs:
        return 1.0
    norms = [(float(flat[i].norm() * flat[j].norm()), float(flat[i] @ flat[j])) for i, j in pairs]
    cosine = sum(product / norm if norm > 0 else 0.0 for norm, product in norms) / len(pairs)
    below = 1 + (len(flat) - 1) * cosine
    return len(flat) * cosine / below if below > 0 else 0.0


def kth_largest(tensors: Callable[[], Iterable[Tensor]], k: int) -> float:
    """The k-th largest magnitude over all elements, exact, in two passes that hold one tensor at a time.

    Magnitudes of float32 are ordered as their bits are: the first pass counts by the upper bits, the second by the
    lower ones among those that share the upper bits of the wanted one.
    """
    upper, beyond = _bin_of_rank((_bits(t) >> HALF for t in tensors()), k)
    lower, _ = _bin_of_rank(
        (bits[bits >> HALF == upper] & ((1 << HALF) - 1) for bits in map(_bits, tensors())), k - beyond
    )
    return float(torch.tensor([upper << HALF | lower], dtype=torch.int32).view(torch.float32))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.abs().contiguous().view(torch.int32).flatten()


def _bin_of_rank(values: Iterable[Tensor], k: int) -> tuple[int, int]:
    """The value of the k-th largest of many integers below 2^16, and how many are larger."""
    counts = torch.zeros(1 << HALF, dtype=torch.int64)
    for part in values:
        counts += torch.bincount(part, minlength=1 << HALF).cpu()
    from_above = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_above, k))
    value = (1 << HALF) - 1 - place
    return value, int(from_above[place] - counts[value])


def stream(seed: int | None, digest: str, name: str) -> int:
    """The key of a member's random numbers for a tensor."""
    hashed = hashlib.blake2b(f"{seed}\0{digest}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "little", signed=True)


def uniforms(size: int, key: int, device: str = "cpu") -> Tensor:
    """Independent uniform numbers in [0, 1), float32, the i-th a hash of (key, i).  Returns (size,)."""
    found = torch.empty(size, device=device)
    start_key = torch.tensor(key, device=device)
    for start in range(0, size, CHUNK):
        places = torch.arange(start + 1, min(start + CHUNK, size) + 1, device=device)
        bits = scramble(start_key + GOLDEN * places)
        found[start : start + CHUNK] = ((bits >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24
    return found


# ---------------------------------------------------------------------------------------------- next tokens


def mix_logits(coefficients: Sequence[float], logits: Sequence[Tensor]) -> Tensor:
    """sum_i c_i z_i, (..., V) float32."""
    mixed = logits[0] * coefficients[0]
    for coefficient, z in zip(coefficients[1:], logits[1:], strict=True):
        mixed.add_(z, alpha=coefficient)
    return mixed


def mix_probs(coefficients: Sequence[float], logits: Sequence[Tensor]) -> Tensor:
    """log sum_i c_i softmax(z_i), (..., V) float32; c_i above 0 that sum to 1."""
    mixed = logits[0].softmax(dim=-1) * coefficients[0]
    for coefficient, z in zip(coefficients[1:], logits[1:], strict=True):
        mixed.add_(z.softmax(dim=-1), alpha=coefficient)
    return mixed.log_()


def plausible(logits: Tensor, share: float) -> Tensor:
    """Which tokens are at least `share` times as likely as the likeliest (contrastive decoding's V_head).

    logits: (..., V).  Returns (..., V) bool.
    """
    return logits >= logits.amax(dim=-1, keepdim=True) + math.log(share)
