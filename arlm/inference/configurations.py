"""Configurations that ship with arlm, found by name: those that can be run, and fragments of them.

In a clone they are the folder `configs/`; in an installed wheel the same files are inside the package.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import arlm

if TYPE_CHECKING:
    import yaml

# The folders of fragments, by the option that takes one.
FRAGMENTS = {
    "data": "data",
    "model.net": "model",
    "model.optimizer": "optimizer",
    "model.sampler": "sampler",
    "trainer": "trainer",
}
ABOUT = re.compile(
    r"# (?P<time>[\d.]* ?\w+) on (?:one of )?2 cores; "
    r"(?P<result>not run here|[\d.]+ bits/\w+); (?P<note>.+)\."
)
LARGEST, MOST_NODES = 10**6, 10**5  # characters of a configuration, and its values


class About(NamedTuple):
    """What the second line of a configuration says."""

    time: str  # of training on 2 cores
    result: str  # measured by this project, or "not run here"
    note: str


def folder() -> Path:
    """The folder of the shipped configurations."""
    package = Path(arlm.__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped(kind: str = "config") -> dict[str, Path]:
    """The shipped files for one option, by name.

    Args:
        kind: "config" for configurations that can be run, or an option that takes a fragment, such as "data".
    """
    files = sorted(folder().glob("*/*.yaml"))
    if kind == "config":
        return {p.stem: p for p in files if p.parent.name not in FRAGMENTS.values()}
    return {p.stem: p for p in files if p.parent.name == FRAGMENTS[kind]}


def data_classes() -> dict[str, str]:
    """Class paths of arlm's data modules by class name, read from the source, so that none is imported."""
    home = Path(str(sys.modules["datamodules"].__file__)).parent
    return {
        name: f"datamodules.{path.stem}.{name}"
        for path in sorted(home.glob("*.py"))
        for name in re.findall(r"^class (\w+)\(\w+Module\)", path.read_text(), flags=re.MULTILINE)
    }


def resolve(name: str, kind: str = "config") -> str:
    """What a name means: a file that exists, else a shipped one, else a class of arlm's data modules.

    A name that means none of them is returned as it is.
    """
    if isfile(name):  # of an inline value as well, which may be longer than any path
        return name
    found = shipped(kind).get(name)
    if found is None and kind == "data":
        return data_classes().get(name, name)
    return str(found or name)


def read_yaml(text: str, load: Callable[[str], Any] | None = None) -> Any:
    """The content of a configuration, whose size is checked before, with all aliases expanded.

    Args:
        text: of the file.
        load: reads it; by default `yaml.safe_load`.

    Raises:
        yaml.YAMLError: it is no YAML, or larger than a configuration can be.
    """
    import yaml  # late: `arlm configs` reads none

    if len(text) > LARGEST:
        raise yaml.YAMLError(f"it has {len(text)} characters, more than {LARGEST}")
    try:
        if "*" in text:  # aliases
            _expanded(yaml.compose(text, Loader=yaml.SafeLoader), {})
        return (load or yaml.safe_load)(text)
    except (RecursionError, OverflowError):
        raise yaml.YAMLError("it is nested too deeply") from None


def _expanded(node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """Number of nodes below a node, with aliases expanded; refuses many, and one that contains itself."""
    import yaml

    if id(node) in sizes:
        if not sizes[id(node)]:
            raise yaml.YAMLError("an alias names what it is in")
        return sizes[id(node)]
    sizes[id(node)] = 0
    values = node.value if isinstance(node, yaml.CollectionNode) else []
    parts = [part for each in values for part in (each if isinstance(each, tuple) else (each,))]
    size = 1 + sum(_expanded(part, sizes) for part in parts)
    if size > MOST_NODES:
        raise yaml.YAMLError(f"its aliases make more than {MOST_NODES} values")
    sizes[id(node)] = size
    return size


def about(path: Path) -> About:
    """Training time, result and note of a configuration that can be run.

    Raises:
        ValueError: its second line does not say them.
    """
    line = path.read_text(encoding="utf-8").partition("\n")[2].partition("\n")[0]
    found = ABOUT.fullmatch(line)
    if found is None:
        raise ValueError(
            f"{path}: the second line is not of the form # TIME; RESULT; NOTE.: {line}"
        )
    return About(**found.groupdict())
