"""Build objects from the class paths in a checkpoint, from classes of trusted packages only."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from reprlib import repr as shortened
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import arlm
from arlm.errors import UserError
from arlm.tokenizers import Tokenizer

TRUSTED = ("arlm", "datamodules")
CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
OLDER = "use the version of arlm that wrote it"

T = TypeVar("T")


def build(description: Any, base: type[T], *arguments: Any, trusted: Sequence[str] = ()) -> T:
    """Build the object of a description that `describe` returned.

    Args:
        description: {"class_path": ..., "init_args": {...}}, with plain values or described tokenizers.
        base: the class has to be a subclass of it, defined in the module that the path names.
        arguments: positional arguments that come first, such as the spec.
        trusted: packages that may be imported beside arlm's own, such as "mypackage".

    Raises:
        UserError: the description is invalid, or its class is not trusted, no subclass of `base`, or cannot be
            built.
    """
    kind = find_class(description, base, trusted)
    init_args = {
        name: build(value, Tokenizer, trusted=trusted) if isinstance(value, dict) else value  # type: ignore[type-abstract]
        for name, value in description["init_args"].items()
    }
    hints = _hints(kind)
    for name, value in init_args.items():
        if not _fits(value, hints.get(name, Any)):
            raise UserError(
                f"checkpoint: {description['class_path']} has {name} = {shortened(value)} in it, "
                f"which does not fit; {OLDER}"
            )
    try:
        return kind(*arguments, **init_args)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        path = description["class_path"]
        raise UserError(
            f"checkpoint: {path} cannot be built from the arguments in it ({reason}); {OLDER}"
        ) from None


def _hints(kind: type) -> dict[str, Any]:
    """Types of a constructor's arguments, its bases' included, as far as they can be resolved."""
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        try:
            hints |= get_type_hints(vars(base).get("__init__"))
        except Exception:  # a name that exists for type checkers only, or no function
            hints |= dict.fromkeys(getattr(vars(base).get("__init__"), "__annotations__", ()), Any)
    return hints


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value fits a hint; hints of anything but plain values are not checked."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return isinstance(value, str | int) and value in get_args(hint)
    if hint is float:
        return type(value) in (float, int)
    return hint not in (int, str, bool, NoneType) or type(value) is hint


def find_class(description: Any, base: type[T], trusted: Sequence[str] = ()) -> type[T]:
    """The class that a description names; raises a UserError as `build`."""
    described = description if isinstance(description, dict) else {}
    path, init_args = described.get("class_path"), described.get("init_args")
    valid = isinstance(path, str) and CLASS_PATH.fullmatch(path) and isinstance(init_args, dict)
    if not valid or not all(isinstance(name, str) for name in init_args or ()):
        raise UserError(
            f"checkpoint: its description of {base.__name__} is invalid: {shortened(description)}; {OLDER}"
        )
    assert isinstance(path, str)
    module_name, _, name = path.rpartition(".")
    package = path.partition(".")[0]
    if package not in (*TRUSTED, *trusted):
        raise UserError(
            f"checkpoint: it names the class {path}, which is not arlm's; "
            f'if you trust it, load it in Python with arlm.load(path, trusted=["{package}"])'
        )
    if package == "datamodules" and package not in trusted:
        import_own(package)
    try:
        kind = vars(importlib.import_module(module_name)).get(name)
    except Exception as error:  # an import can raise anything
        raise UserError(f"checkpoint: {path} is missing ({error}); {OLDER}") from None
    if not isinstance(kind, type) or not issubclass(kind, base) or inspect.isabstract(kind):
        raise UserError(f"checkpoint: {path} is not a {base.__name__} that can be built; {OLDER}")
    if kind.__module__ != module_name:
        raise UserError(f"checkpoint: {path} is defined in {kind.__module__}; {OLDER}")
    return kind


def import_own(package: str) -> None:
    """Import a package that ships with arlm, not a folder of that name in the working directory."""
    home = Path(arlm.__file__).resolve().parents[1]
    if package not in sys.modules:
        spec = PathFinder.find_spec(package, [str(home)])
        if spec is None or spec.loader is None:
            raise UserError(f"checkpoint: '{home}' holds no package {package}; install arlm again")
        module = module_from_spec(spec)
        sys.modules[package] = module
        spec.loader.exec_module(module)
    location = Path(str(sys.modules[package].__file__)).resolve().parents[1]
    if location != home:
        raise UserError(
            f"checkpoint: the folder '{location / package}' hides arlm's own package {package}; "
            "run from another folder"
        )
