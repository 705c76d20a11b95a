"""Record class path and arguments of an object once, when it is constructed.

A checkpoint is written long after a network was built: by then its class may be another one (FSDP2 and
parametrisations replace it), attributes may have changed, and a list that was an argument may hold something
else. So the record is made when the constructor is called, and it is a copy.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn


class Unplain(NamedTuple):
    """Takes the place of an argument that a checkpoint cannot hold."""

    kind: str  # name of the argument's type


FACTORY = Unplain("function")  # or a list of functions; described by the networks that they built


@dataclass
class Construction:
    """The record of one object.

    Args:
        class_path: module and name of the class that was called.
        arguments: of the constructor, by name, defaults included: plain values, the `Construction` of a
            captured argument, or `Unplain`.
        open_ended: whether the last constructor that was entered takes any further argument by `**`.
    """

    class_path: str
    arguments: dict[str, Any] = field(default_factory=dict)
    open_ended: bool = True

    def add(self, call: inspect.BoundArguments, outermost: bool) -> None:
        """Record one constructor's call.

        Of a base class, only the defaults are added, and only where the subclass passes `**options` on: what
        is given to the base comes from the subclass, so it is recorded already or not the caller's choice.
        """
        if not self.open_ended:
            return
        parameters = list(call.signature.parameters.values())[1:]
        options = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        given = {n: v for n, v in list(call.arguments.items())[1:] if n not in options}
        more = call.arguments.get(options[0], {}) if options else {}
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        found = defaults | given | more if outermost else defaults
        hidden = {} if outermost else given
        for name, value in found.items():
            if name not in self.arguments and name not in hidden:
                self.arguments[name] = copied(value)
        self.open_ended = bool(options)


class Captured:
    """Base class of what a checkpoint can describe: `construction` records how an object was constructed."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _capturing(vars(cls)["__init__"])  # type: ignore[method-assign]

    @property
    def construction(self) -> Construction:
        """How the object was constructed."""
        # A class without any constructor records nothing, and has no arguments.
        return vars(self).get("_construction") or Construction(class_path(type(self)))


def _capturing(constructor: Callable[..., None]) -> Callable[..., None]:
    """A constructor that records its call first."""
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def capturing(self: Any, *args: Any, **kwargs: Any) -> None:
        # An iterator can be read once: by the record and by the constructor, it is read as a list.
        args = tuple(list(a) if isinstance(a, Iterator) else a for a in args)
        kwargs = {k: list(a) if isinstance(a, Iterator) else a for k, a in kwargs.items()}
        try:
            call = signature.bind(self, *args, **kwargs)
        except TypeError:  # the constructor itself raises the better message
            constructor(self, *args, **kwargs)
            raise
        outermost = "_construction" not in vars(self)
        if outermost:
            vars(self)["_construction"] = Construction(class_path(type(self)))
        self.construction.add(call, outermost)
        constructor(self, *args, **kwargs)

    return capturing


def class_path(kind: type) -> str:
    """Module and name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def copied(value: Any) -> Any:
    """A copy of an argument, as plain as JSON, that later changes of the argument leave alone."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral | Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, nn.Module):
        return Unplain(type(value).__name__)
    if isinstance(value, Captured):
        return value.construction
    if isinstance(value, list | tuple | range | Set):
        parts = [copied(v) for v in (sorted(value, key=repr) if isinstance(value, Set) else value)]
        return FACTORY if parts and all(p == FACTORY for p in parts) else parts
    return FACTORY if callable(value) else Unplain(type(value).__name__)
