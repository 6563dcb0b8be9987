"""Name -> class, imported only when asked for; an unknown name is answered with the nearest ones.

Built-in names come from a table in `methods` and `evaluators`; other packages add theirs through entry points, and a
suite may give a dotted path (`package.module:Class`) instead of a name.
"""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from bench.collector import paused
from bench.schema import UserError

T = TypeVar("T", bound=BaseModel)


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'g2'?` where something is near, else the sorted names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"


def explain(error: ValidationError, where: str, known: Iterable[str] = ()) -> UserError:
    """The first of pydantic's errors as one line: where, which key, what was expected, what was given."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    place = f"{where}.{key}" if where and key else where or key
    more = len(error.errors()) - 1
    tail = f" (and {more} more)" if more else ""
    match first["type"]:
        case "extra_forbidden":
            leaf = str(first["loc"][-1])
            return UserError(f"{place}: unknown key {leaf!r}{suggest(leaf, known) if known else ''}{tail}")
        case "missing":
            return UserError(f"{place}: missing{tail}")
        case _:
            given = repr(first["input"])
            message = first["msg"].removeprefix("Value error, ")
            message = message[0].lower() + message[1:]
            return UserError(f"{place}: {message}, got {given if len(given) < 80 else given[:77] + '...'}{tail}")


class Registry(Generic[T]):
    """The classes of one kind that a suite can name."""

    def __init__(self, kind: str, base: type[T], table: Mapping[str, str], group: str) -> None:
        self.kind = kind
        self.base = base
        self._paths = dict(table)
        self._plugins: dict[str, EntryPoint] = {
            point.name: point for point in entry_points(group=group) if point.name not in table
        }

    def names(self) -> list[str]:
        """Built-in names in table order, then plugins by name."""
        return [*self._paths, *sorted(self._plugins)]

    def get(self, name: str) -> type[T]:
        """The class called `name`.  Raises UserError with the nearest name, or with what broke in a plugin."""
        if name in self._paths:
            return self._load(name, self._paths[name])
        if name in self._plugins:
            return self._load(name, self._plugins[name].value)
        if ":" in name:
            return self._load(name, name)
        raise UserError(f"unknown {self.kind} {name!r}{suggest(name, self.names())}")

    def create(self, name: str, options: Mapping[str, Any], where: str = "") -> T:
        """An instance with `options` as its fields.  Raises UserError naming `where` and the wrong key."""
        cls = self.get(name)
        try:
            return cls(**options)
        except ValidationError as error:
            raise explain(error, where or f"{self.kind} {name}", cls.model_fields) from error

    def _load(self, name: str, path: str) -> type[T]:
        module, _, attribute = path.partition(":")
        try:
            with paused():
                loaded = getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:  # a plugin may fail in any way; it must not take the rest down
            if name in self._paths:
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(f"{self.kind} {name!r} cannot be loaded from {path}: {reason}") from error
        if not (isinstance(loaded, type) and issubclass(loaded, self.base)):
            raise UserError(f"{self.kind} {name!r}: {path} is not a subclass of {self.base.__name__}")
        return loaded
