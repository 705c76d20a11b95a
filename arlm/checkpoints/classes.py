"""Build objects from the class paths in a checkpoint, from classes of trusted modules only."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from reprlib import repr as shortened
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import arlm
from arlm.checkpoints.specs import OLDER, spec_from
from arlm.checkpoints.trust import OWN, import_trusted
from arlm.core import Autoregressor, Spec
from arlm.errors import UserError
from arlm.tokenizers import Tokenizer

CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
DEEPEST = 16  # descriptions within one another
ANY_SPEC = object()  # in the place of a nested network's spec; no JSON holds it

T = TypeVar("T")


def build(
    description: Any, base: type[T], *arguments: Any, trusted: Sequence[str] = (), depth: int = 0
) -> T:
    """Build the object of a description that `describe` returned.

    Args:
        description: {"class_path": ..., "init_args": {...}}, with plain values, described tokenizers, or
            described networks with their specs, for arguments that are factories of networks.
        base: the class has to be a subclass of it, defined in the module that the path names.
        arguments: positional arguments that come first, such as the spec.
        trusted: packages, modules and files that may be imported beside arlm's own, such as "mypackage" or
            "mynets.py".
        depth: number of descriptions around this one.

    Raises:
        UserError: the description is invalid, or its class is not trusted, no subclass of `base`, or cannot be
            built.
    """
    if depth > DEEPEST:
        raise UserError(f"checkpoint: more than {DEEPEST} descriptions are nested in it; {OLDER}")
    kind = find_class(description, base, trusted)
    hints, init_args = _hints(kind), {}
    for name, value in description["init_args"].items():
        hint = hints.get(name, Any)
        try:
            init_args[name] = _argument(value, hint, trusted, depth + 1)
        except TypeError:
            raise UserError(
                f"checkpoint: {description['class_path']} has {name} = {shortened(value)} in it, "
                f"which does not fit; {OLDER}"
            ) from None
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


def _argument(value: Any, hint: Any, trusted: Sequence[str], depth: int) -> Any:
    """An argument as its constructor takes it; raises a TypeError for a value that does not fit the hint."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if any(_is_factory(option) for option in options) and isinstance(value, dict):
        return _factory(value, trusted, depth)
    parts = [get_args(option)[0] for option in options if get_origin(option) in (list, Sequence)]
    if any(_is_factory(part) for part in parts) and isinstance(value, list):
        return [_argument(part, parts[0], trusted, depth) for part in value]
    if isinstance(value, dict):
        value = build(value, Tokenizer, trusted=trusted, depth=depth)  # type: ignore[type-abstract]
    if not _fits(value, hint):
        raise TypeError
    return value


def _factory(
    description: dict[str, Any], trusted: Sequence[str], depth: int
) -> Callable[[Spec], Autoregressor]:
    """A factory of the network that a description with a spec describes, for exactly that spec, or for any."""
    find_class(description, Autoregressor, trusted)  # type: ignore[type-abstract]
    for_any = description.get("spec") is ANY_SPEC
    described = None if for_any else spec_from(description.get("spec"))

    def make(spec: Spec) -> Autoregressor:
        if spec != described and not for_any:
            raise UserError(
                f"checkpoint: {description['class_path']} in it is for other data than the network that "
                f"holds it; {OLDER}"
            )
        return build(description, Autoregressor, spec, trusted=trusted, depth=depth)  # type: ignore[type-abstract]

    return make


def for_any_spec(description: Any) -> Any:
    """A description whose nested networks take the specs that the networks around them derive from other data."""
    if isinstance(description, list):
        return [for_any_spec(part) for part in description]
    if not isinstance(description, dict):
        return description
    found = {name: for_any_spec(part) for name, part in description.items()}
    return found | ({"spec": ANY_SPEC} if {"class_path", "spec"} <= set(found) else {})


def _is_factory(hint: Any) -> bool:
    """Whether a hint is `Callable[[Spec], Autoregressor]`."""
    if get_origin(hint) is not Callable:
        return False
    made = get_args(hint)[-1]
    return isinstance(made, type) and issubclass(made, Autoregressor)


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
    if origin in (list, Sequence) and isinstance(value, list):
        return all(_fits(part, get_args(hint)[0]) for part in value)
    if _is_factory(hint) or origin in (list, Sequence):
        return False
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
    return import_class(path, base, trusted)


def import_class(
    path: str, base: type[T], trusted: Sequence[str] = (), field: str = "checkpoint"
) -> type[T]:
    """The class at a path such as "mymodule.MyClass", of arlm's own packages or of trusted ones.

    Args:
        path: names the module that defines the class.
        base: the class has to be a subclass of it that can be built.
        trusted: packages, modules and files that may be imported beside arlm's own.
        field: what names the class, for errors.

    Raises:
        UserError: the class is missing, is not trusted, or is no such subclass.
    """
    mend = OLDER if field == "checkpoint" else "check the class"
    module_name, _, name = path.rpartition(".")
    package = path.partition(".")[0]
    if package == "datamodules" and package not in trusted:
        check_own(package)
    try:
        module = import_trusted(module_name, trusted)
    except UserError:
        raise
    except Exception as error:  # an import can raise anything
        give = mend if package in OWN else f"give its file: --trust FOLDER/{_file(module_name)}"
        raise UserError(f"{field}: {path} is missing ({error}); {give}") from None
    if module is None:
        raise UserError(
            f"{field}: it names the class {path}, which is not arlm's; if you trust it, add "
            f'--trust {_file(module_name)} (in Python: trusted=["{_file(module_name)}"])'
        )
    kind = vars(module).get(name)
    if not isinstance(kind, type) or not issubclass(kind, base) or inspect.isabstract(kind):
        raise UserError(f"{field}: {path} is not a {base.__name__} that can be built; {mend}")
    if kind.__module__ != module.__name__:
        raise UserError(f"{field}: {path} is defined in {kind.__module__}; {mend}")
    return kind


def _file(module: str) -> str:
    """What to trust for a class of a module: the file of a single module, or the package."""
    if module == "__main__":
        return "SCRIPT.py"
    package, dot, _ = module.partition(".")
    return package if dot else f"{module}.py"


def check_own(package: str) -> None:
    """Refuse a package that was imported before arlm and has the name of one that ships with it."""
    home = Path(arlm.__file__).resolve().parents[1]
    location = Path(str(sys.modules[package].__file__)).resolve().parents[1]
    if location != home:
        raise UserError(
            f"checkpoint: the folder '{location / package}' hides arlm's own package {package}; "
            "import arlm first"
        )
