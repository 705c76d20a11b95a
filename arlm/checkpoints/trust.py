"""Modules that the caller trusts: packages by name, and single files by path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from arlm.errors import UserError

OWN = ("arlm", "datamodules")


def import_trusted(name: str, trusted: Sequence[str]) -> ModuleType | None:
    """Import the module that a checkpoint names, if it is arlm's own or trusted; None if it is not.

    Args:
        name: of the module, such as "mypackage.nets".
        trusted: packages and modules by name, whose submodules are trusted too; and files, "FOLDER/mynets.py",
            each of which is the module of its own name. Classes of a script (of the module `__main__`) are
            looked up in the first of the files.
    """
    files = {Path(item).stem: Path(item) for item in trusted if is_file(item)}
    if name == "__main__" and name not in trusted:
        name = next(iter(files), name)
    if name in files:
        return import_file(files[name])
    names = (*OWN, *(item for item in trusted if not is_file(item)))
    if any(name == item or name.startswith(f"{item}.") for item in names):
        return importlib.import_module(name)
    return None


def is_file(item: str) -> bool:
    """Whether an item of the trusted is a file, and not the name of a module."""
    return item.endswith(".py")


def import_file(path: Path) -> ModuleType:
    """Import a file as the module of its name; once, however often it is named."""
    path = path.resolve()
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is None and not path.is_file():
        raise UserError(f"--trust: '{path}' does not exist; check the path")
    found = find_spec(name) if loaded is None else None
    origin = getattr(loaded, "__file__", "built in") if loaded else found.origin if found else None
    if origin is not None and Path(origin).resolve() != path:
        raise UserError(
            f"--trust: '{path}' has the name of another module ({origin}); rename it, and train again"
        )
    if loaded is not None:
        return loaded
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
