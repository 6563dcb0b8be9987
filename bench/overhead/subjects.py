"""Pure: which mixtures of a suite are timed, and on which prompts.

One representative point a method, since cost depends on a recipe's shape and hardly on its numbers; beside them the
base again (the noise floor), every method at alpha 0 where that is the base (the machinery's own cost), and ensembles
of 2, 3, ... checkpoints (cost against members).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.registry import Registry
from bench.schema import Point, Prompt, Recipe, Role, UserError

BASE = "base"
AGAIN = "base (again)"
FAINT = 1e-9  # a coefficient that costs a member but leaves the base's distribution


@dataclass(frozen=True)
class Subject:
    """A mixture that is timed; `name` is what the view calls `method`, `method` the registered one that made it."""

    name: str
    role: Role
    recipe: Recipe
    params: Mapping[str, Any] = field(default_factory=dict)
    method: str = ""


def choose_subjects(points: Sequence[Point], methods: Registry[Any], checkpoints: Sequence[str]) -> list[Subject]:
    """The base, the base again, and what the suite's methods ask for.  Raises UserError where there is no base."""
    if "base" not in checkpoints:
        raise UserError("overhead: times are compared with the base's, and checkpoints has none of that name")
    base = Recipe(space="weights", coefficients={"base": 1})
    chosen = representatives(points)
    ensembles = faint_ensembles(checkpoints) if any(s.recipe.space == "logits" for s in chosen) else []
    return [
        Subject(BASE, "base", base, method="base"),
        Subject(AGAIN, "again", base),
        *(s for s in chosen if s.recipe != base),
        *undrafted(chosen),
        *identity_controls(chosen, methods),
        *ensembles,
    ]


def representatives(points: Sequence[Point]) -> list[Subject]:
    """One point for every method and kind of mixing.

    The point that mixes the most checkpoints, of these the one with alpha nearest 1, of these the first.  A method that
    mixes in several ways (with and without `filter_p`, or a draft) has a subject for each; the first has the bare name.
    How often a draft is accepted does depend on the numbers, so there every point is a subject, by its label.
    """
    groups: dict[tuple[Any, ...], list[Point]] = {}
    drafting = {point.method for point in points if point.recipe.draft is not None}
    for point in points:
        recipe = point.recipe
        alone = recipe.space == "logits" and len(recipe.coefficients) == 1
        if alone and recipe.draft is None and point.method in drafting:
            continue  # the base, which needs no draft
        drafted = None if recipe.draft is None else recipe.draft.k
        groups.setdefault((point.method, recipe.space, recipe.filter_p, drafted), []).append(point)
    subjects: dict[str, Subject] = {}
    for (method, *_), members in groups.items():
        point = min(members, key=_distance)
        drafts = point.recipe.draft is not None
        name = point.label if drafts or method in subjects else method
        subjects[name] = Subject(name, "method", point.recipe, point.params, method)
        for other in members if drafts else ():
            subjects.setdefault(other.label, Subject(other.label, "strength", other.recipe, other.params, method))
    return list(subjects.values())


def undrafted(subjects: Sequence[Subject]) -> list[Subject]:
    """What methods with a draft are measured against, where it is no subject yet: the same mixture without one."""
    found: list[Subject] = []
    for subject in subjects:
        if subject.recipe.draft is not None and plain_of(subject, [*subjects, *found]) is None:
            recipe = subject.recipe.model_copy(update={"draft": None})
            found.append(Subject(f"{subject.method} without its draft", "strength", recipe, {}, subject.method))
    return found


def plain_of(subject: Subject, subjects: Sequence[Subject]) -> Subject | None:
    """The subject that costs what this one would without its draft: the same members in the same way."""
    names = list(subject.recipe.coefficients)
    alike = (s for s in subjects if s.recipe.draft is None and s.recipe.space == "logits" and s.role != "ensemble")
    return next((s for s in alike if s.recipe.filter_p is None and list(s.recipe.coefficients) == names), None)


def _distance(point: Point) -> tuple[int, float]:
    alpha = point.params.get("alpha")
    return -len(point.recipe.coefficients), abs(alpha - 1) if isinstance(alpha, int | float) else 0.0


def identity_controls(subjects: Sequence[Subject], methods: Registry[Any]) -> list[Subject]:
    """The representatives at alpha 0, where that leaves the base alone: g2, DExperts and methods like them."""
    found: dict[str, Subject] = {}
    for subject in subjects:
        if subject.role != "method" or "alpha" not in subject.params:
            continue
        params = {**subject.params, "alpha": 0}
        recipe = methods.create(subject.method, params).recipe()
        if recipe.coefficients == {"base": 1} and recipe.filter_p is None:
            name = f"{subject.name if subject.recipe.draft is None else subject.method}(alpha=0)"
            found.setdefault(name, Subject(name, "control", recipe, params, subject.method))
    return list(found.values())


def faint_ensembles(checkpoints: Sequence[str]) -> list[Subject]:
    """Logit mixtures of 2, 3, ... checkpoints with all weight on the base: the work of an ensemble, the base's text."""
    others = [name for name in checkpoints if name != "base"]
    return [
        Subject(
            f"ensemble of {count + 1}",
            "ensemble",
            Recipe(space="logits", coefficients={"base": 1, **dict.fromkeys(others[:count], FAINT)}),
        )
        for count in range(1, len(others) + 1)
    ]


def batch_of(prompts: Sequence[Prompt], batch_size: int) -> list[Prompt]:
    """The suite's prompts in order, over again where there are too few; each row is its own, so its noise is too."""
    return [Prompt(set="overhead", row=i, text=prompts[i % len(prompts)].text) for i in range(batch_size)]
