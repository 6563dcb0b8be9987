"""YAML -> Suite.  An error names the file, the key, what was expected and the nearest valid name.

A suite is a name of one packaged in `bench/suites` or a path.  Paths that start with
./ or ../ are relative to the suite's file; in a packaged suite, to the working folder.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from bench.registry import Registry, explain, suggest
from bench.schema import (
    AdapterSource,
    EvaluatorSpec,
    ExpertData,
    FinetuneSpec,
    Goal,
    Lora,
    MethodSpec,
    PromptSource,
    Sampling,
    Suite,
    UserError,
)
from bench.suite.points import held

PACKAGED = Path(str(files("bench") / "suites"))
MAX_NODES = 100_000  # of a suite's YAML


def packaged_suites() -> list[str]:
    return sorted(path.stem for path in PACKAGED.glob("*.yaml"))


def find_suite(name: str) -> Path:
    """The file of a packaged suite's name or of a path.  Raises UserError with the nearest name."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        if not path.is_file():
            raise UserError(f"{name}: no such suite file")
        return path
    packaged = PACKAGED / f"{name}.yaml"
    if not packaged.is_file():
        raise UserError(f"unknown suite {name!r}{suggest(name, packaged_suites())}; or give the path of a YAML file")
    return packaged


def load_suite(suite: str | Mapping[str, Any], methods: Registry[Any], evaluators: Registry[Any]) -> Suite:
    """Check a suite, of a name or path or as the mapping that its file holds: every name is known, every parameter is
    valid.  A mapping's paths are relative to the working folder.  Raises UserError."""
    path = find_suite(suite) if isinstance(suite, str) else Path("suite")
    raw = read_yaml(path) if isinstance(suite, str) else suite
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping with the keys {', '.join(Suite.model_fields)}")
    if odd := [key for key in raw if not isinstance(key, str)]:
        raise UserError(f"{path}: unknown key {odd[0]!r}{suggest(str(odd[0]), Suite.model_fields)}")
    raw = dict(raw)
    raw["methods"] = [_method(entry, i, path, methods) for i, entry in enumerate(_list(raw, "methods", path))]
    raw["evaluators"] = [
        _evaluator(entry, i, path, evaluators) for i, entry in enumerate(_list(raw, "evaluators", path))
    ]
    if not raw["methods"]:
        raise UserError(f"{path}: methods: expected at least one method; known: {', '.join(methods.names())}")
    kinds = (Suite, AdapterSource, Goal, PromptSource, Sampling, FinetuneSpec, Lora, ExpertData)
    known = [field for kind in kinds for field in kind.model_fields]
    try:
        found = Suite(**raw)
    except ValidationError as error:
        raise explain(error, f"{path}: ", known) from error
    if not found.prompts:
        raise UserError(f"{path}: prompts: expected at least one prompt set")
    _check_experts(found, path)
    _check_goals(found, path, evaluators)
    return _resolve_paths(found, Path.cwd() if path.parent == PACKAGED else path.resolve().parent)


def combinations(suite: str | Mapping[str, Any] | Suite, only: Sequence[str] = ()) -> int:
    """About how many points a suite has, before anything in it is checked, which takes seconds of imports.

    0 where it cannot be read, and where it makes experts first.
    """
    if isinstance(suite, Suite):
        return 0 if suite.finetune else sum(prod(map(len, m.params.values())) for m in suite.methods)
    with suppress(UserError, LookupError, TypeError):
        raw = read_yaml(find_suite(suite)) if isinstance(suite, str) else suite
        entries = [] if "finetune" in raw else raw["methods"]
        named = [named_options(entry, "") for entry in entries]
        swept = [options.values() for name, options in named if not only or name in only]
        return sum(prod(len(v) for v in values if isinstance(v, list)) for values in swept)
    return 0


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key may stand once in a mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for i, key in enumerate(keys) if key.value in [k.value for k in keys[:i]]), None):
            raise yaml.MarkedYAMLError(problem=f"the key {twice.value!r} stands twice", problem_mark=twice.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The file's content.  Raises UserError for what is no YAML, a key given twice, and aliases without end."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8-sig"))
        node = loader.get_single_node()
        _unfolded(node, {})
        return None if node is None else loader.construct_document(node)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{path}: not readable as YAML: nested too deeply") from error


def _unfolded(node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """How many nodes there are when every alias is written out.  Raises ValueError for more than MAX_NODES."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = MAX_NODES  # until it is known: an alias to what it stands in has no end
        children = chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
        sizes[id(node)] = 1 + sum(_unfolded(child, sizes) for child in children)
        if sizes[id(node)] > MAX_NODES:
            raise ValueError(f"its aliases unfold to more than {MAX_NODES:,} values")
    return sizes[id(node)]


def _list(raw: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    value = raw.get(key, [])
    if not isinstance(value, list):
        raise UserError(f"{path}: {key}: expected a list, got {value!r}")
    return value


def named_options(entry: Any, where: str) -> tuple[str, dict[str, Any]]:
    """`name` or `{name: {options}}` as a name and its options."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, options),) = entry.items()
        if options is None or isinstance(options, dict):
            if odd := [key for key in options or {} if not isinstance(key, str)]:
                raise UserError(f"{where}: expected names as keys, got {odd[0]!r}; put it in quotes")
            return str(name), dict(options or {})
    raise UserError(f"{where}: expected a name or {{name: {{options}}}}, got {entry!r}")


def _method(entry: Any, i: int, path: Path, methods: Registry[Any]) -> MethodSpec:
    where = f"{path}: methods[{i}]"
    name, options = named_options(entry, where)
    cls = _class(methods, name, where)
    swept = {key: tuple(value) if isinstance(value, list) else (value,) for key, value in options.items()}
    for key, values in swept.items():
        if key not in cls.model_fields and cls.model_config.get("extra") != "allow":
            known = list(cls.model_fields)
            hint = suggest(key, known) if known else f"; {name} takes no parameters"
            raise UserError(f"{where}.{key}: unknown key {key!r}{hint}")
        if not values:
            raise UserError(f"{where}.{key}: expected a number or a list of numbers, got an empty list")
        swept[key] = tuple(_parameter(cls, key, value, where) for value in values)
    for key, field in cls.model_fields.items():
        if field.is_required() and key not in swept:
            raise UserError(f"{where}.{key}: missing; {name} needs a number or a list of numbers")
    return MethodSpec(name=name, params=swept)


def _is_text(kind: Any) -> bool:
    return kind is str or get_origin(kind) is Literal


def _takes_text(kind: Any) -> bool:
    """Whether words are among what a field takes, beside None or numbers."""
    return _is_text(kind) or any(map(_takes_text, get_args(kind)))


def _parameter(cls: type[BaseModel], key: str, value: Any, where: str) -> Any:
    field = cls.model_fields.get(key)
    kind = None if field is None else field.annotation
    if (isinstance(value, bool) and not _is_text(kind)) or (isinstance(value, str) and not _takes_text(kind)):
        raise UserError(f"{where}.{key}: expected a number or a list of numbers, got {value!r}{_exponent_hint(value)}")
    try:
        return held(cls, key, value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise UserError(f"{where}.{key}: {message[0].lower()}{message[1:]}, got {value!r}") from error


def _exponent_hint(value: bool | str) -> str:
    """How YAML 1.1 writes what it read as text: with a point and a signed exponent."""
    found = re.fullmatch(r"([-+]?\d+)(\.\d*)?e([-+]?)(\d+)", str(value), re.IGNORECASE)
    if found is None:
        return ""
    whole, part, sign, exponent = found.groups()
    return f", which is text in YAML 1.1; write {whole}{part or '.0'}e{sign or '+'}{exponent}"


def _evaluator(entry: Any, i: int, path: Path, evaluators: Registry[Any]) -> EvaluatorSpec:
    where = f"{path}: evaluators[{i}]"
    name, options = named_options(entry, where)
    _class(evaluators, name, where)
    evaluators.create(name, options, f"{where} {name}")
    return EvaluatorSpec(name=name, options=options)


def _check_experts(suite: Suite, path: Path) -> None:
    if suite.finetune is None:
        return
    given = suite.checkpoints
    if suite.finetune.base not in given:
        raise UserError(
            f"{path}: finetune.base: no checkpoint {suite.finetune.base!r}{suggest(suite.finetune.base, given)}"
        )
    if twice := sorted(suite.finetune.experts.keys() & given.keys()):
        raise UserError(
            f"{path}: finetune.experts.{twice[0]}: checkpoints gives {twice[0]!r} too; leave one of them out"
        )


def _check_goals(suite: Suite, path: Path, evaluators: Registry[Any]) -> None:
    """What a goal names, and does not take by default, is a metric that one of the suite's evaluators reports."""
    named = [metric for goal in suite.goal for key in ("control", "cost") if key in goal.model_fields_set
             for metric in ((goal.control,) if key == "control" else goal.cost)]  # fmt: skip
    if named:
        made = [evaluators.create(spec.name, spec.options) for spec in suite.evaluators]
        known = sorted({metric.name for evaluator in made for metric in evaluator.metrics()})
        if unknown := [metric for metric in named if metric not in known]:
            raise UserError(
                f"{path}: goal: no evaluator of the suite reports {unknown[0]!r}{suggest(unknown[0], known)}"
            )


def _class(registry: Registry[Any], name: str, where: str) -> type[BaseModel]:
    try:
        return registry.get(name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _resolve_paths(suite: Suite, folder: Path) -> Suite:
    """Sources that start with ./ or ../ become absolute, so that a suite works from any folder."""

    def absolute(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(("./", "../")):
            return str((folder / value).resolve())
        if isinstance(value, dict):
            return {key: absolute(item) for key, item in value.items()}
        if isinstance(value, list):
            return [absolute(item) for item in value]
        return value

    return Suite(**absolute(suite.model_dump(mode="json")))
