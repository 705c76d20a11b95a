"""Find a key in the configuration files that a command line names, for error messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from os.path import isfile
from pathlib import Path

import yaml

from arlm.inference.configurations import FRAGMENTS, LARGEST, read_yaml


class ConfigFiles:
    """The configuration files of a command line.

    Args:
        arguments: the command line after the verb, with paths in place of names.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = arguments
        options = {"--config": "", "-c": ""} | {f"--{kind}": kind for kind in FRAGMENTS}
        self.files: list[tuple[Path, str]] = []  # with the key whose value each is; later ones win
        pairs = [tuple(a.partition("=")[::2]) for a in arguments if "=" in a]
        pairs += list(pairwise(arguments))
        for option, value in pairs:
            if option in options and isfile(value):
                self._add(Path(value), options[option])

    def _add(self, path: Path, prefix: str) -> None:
        """Add a file, and before it the fragments that it names."""
        root = _parsed(path)
        for kind in FRAGMENTS if not prefix else ():
            node = _child(root, kind.split("."))
            if isinstance(node, yaml.ScalarNode) and isfile(path.parent / node.value):
                self._add(path.parent / node.value, kind)
        self.files.append((path, prefix))

    def locate(self, key: str) -> str:
        """ "FILE, line N: " for a dotted key that a file holds; nothing for one of the command line."""
        if any(a.partition("=")[0].rstrip("+") == f"--{key}" for a in self.arguments):
            return ""
        for path, prefix in reversed(self.files):
            if prefix and not key.startswith(f"{prefix}."):
                continue
            node = _child(_parsed(path), key.removeprefix(prefix).strip(".").split("."), key=True)
            if node is not None:
                return f"{self.shown(path)}, line {node.start_mark.line + 1}: "
        return ""

    def unreadable(self) -> str | None:
        """One line for the first file that is no mapping in YAML."""
        for path, _ in self.files:
            text = path.read_text(errors="replace")
            try:
                content = read_yaml(text)
            except yaml.MarkedYAMLError as error:
                line = (error.problem_mark.line + 1) if error.problem_mark else 1
                mend = (
                    "indent with spaces, not tabs" if "\t" in text else "check the line above, too"
                )
                return f"{self.shown(path)}, line {line}: no valid YAML ({error.problem}); {mend}"
            except (yaml.YAMLError, ValueError) as error:  # a ValueError for an impossible date
                return f"{self.shown(path)}: no valid YAML ({' '.join(str(error).split())})"
            if not isinstance(content, dict):
                what = "is empty" if not text.strip() else "holds no keys"
                return f"{self.shown(path)} {what}; a configuration has keys such as data, model and trainer"
        return None

    @staticmethod
    def shown(path: str | Path) -> str:
        """A path, relative to the working folder if it is inside."""
        path = Path(path)
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _parsed(path: Path) -> yaml.Node | None:
    """The tree of a file; None if it is no YAML."""
    try:
        text = path.read_text(errors="replace")
        return yaml.compose(text, Loader=yaml.SafeLoader) if len(text) <= LARGEST else None
    except (yaml.YAMLError, RecursionError):
        return None


def _child(node: yaml.Node | None, keys: Sequence[str], key: bool = False) -> yaml.Node | None:
    """The node at dotted keys, which leave out `init_args`; the node of the last key itself if `key` is set."""
    found = node
    for part in keys:
        entries = _entries(node)
        if part not in entries and "init_args" in entries:
            entries = _entries(entries["init_args"][1])
        if part not in entries:
            return None
        found, node = entries[part]
    return found if key else node


def _entries(node: yaml.Node | None) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The key and the value node of each entry with a plain key; none if the node is no mapping."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return {key.value: (key, value) for key, value in pairs if isinstance(key, yaml.ScalarNode)}
