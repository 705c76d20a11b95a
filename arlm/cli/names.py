"""Names of shipped configurations, on the command line and inside a configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os.path import isfile
from pathlib import Path
from typing import Any

from jsonargparse import get_loader, set_loader
from jsonargparse._loaders_dumpers import set_omegaconf_loader
from yaml import YAMLError

from arlm.data.text_files import read_text
from arlm.inference.configurations import FRAGMENTS, data_classes, read_yaml, resolve, shipped

WITHIN = re.compile(r"--model\.net(\.(init_args\.)?base)+")


def expand(arguments: Sequence[str]) -> list[str]:
    """The command line with a path in place of each name of a shipped configuration."""
    options = {f"--{kind}": kind for kind in ("config", *FRAGMENTS)} | {"-c": "config"}
    options |= {"--data.text": "data", "--data.init_args.text": "data"}  # of data within other data
    # A network within a network, such as the base of an adapter, is named as a network is.
    within = {a.partition("=")[0] for a in arguments if WITHIN.fullmatch(a.partition("=")[0])}
    options |= dict.fromkeys(within, "model.net")
    expanded, kind = [], None
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if kind is not None:
            argument = _readable(resolve(argument, kind), kind)
        elif equals and option in options:
            argument = f"{option}={_readable(resolve(value, options[option]), options[option])}"
        kind = options.get(argument) if kind is None else None
        expanded.append(argument)
    return expanded


def _readable(name: str, kind: str) -> str:
    """What a name means; refused if it is a file that holds no text."""
    if isfile(name):
        read_text(Path(name), kind)
    return name


def expand_configurations(mode: str) -> None:
    """Let configurations of a parser's mode name shipped fragments, as the command line can."""
    set_omegaconf_loader(mode)  # which the parser itself does when it first reads a value
    load = get_loader(mode)
    if hasattr(load, "expands"):
        return

    def expanding(text: str) -> Any:
        # The parser works in the folder of the file that it reads, so paths are relative to that.
        content = read_yaml(text, load)
        if isinstance(content, dict):
            for kind in FRAGMENTS:
                _expand(content, kind.split("."), kind)
            # A data module may read another one's text; it is in a run, or in a fragment of its own.
            for part in (content, content.get("data")):
                if isinstance(part, dict) and part.get("class_path") in known_data():
                    _expand(part, ["init_args", "text"], "data")
        return content

    expanding.expands = True  # type: ignore[attr-defined]
    set_loader(mode, expanding, (YAMLError,))


def _expand(content: Any, keys: list[str], kind: str) -> None:
    """Resolve the name at a place of a configuration, if there is one."""
    *above, last = keys
    for key in above:
        content = content.get(key) if isinstance(content, dict) else None
    value = content.get(last) if isinstance(content, dict) else None
    if isinstance(value, str):
        content[last] = _readable(resolve(value, kind), kind)
    elif kind == "data" and isinstance(value, dict) and isinstance(value.get("class_path"), str):
        value["class_path"] = data_classes().get(value["class_path"], value["class_path"])


def known_data() -> set[str]:
    """arlm's data modules, by name and by class path."""
    found = data_classes()
    return {*found, *found.values()}


def known_names(key: str) -> list[str]:
    """What may be given by name for a key: shipped configurations, and classes that are imported."""
    if key == "config":
        return list(shipped())
    fragments = list(shipped(key)) if key in FRAGMENTS else []
    data = list(data_classes()) if key == "data" else []
    return fragments + data + [name for base in _bases(key) for name in _subclasses(base)]


def _bases(key: str) -> list[type]:
    """The classes whose subclasses a key takes."""
    from pytorch_lightning import Callback
    from pytorch_lightning.loggers import Logger
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from arlm.core import Autoregressor
    from arlm.sampling.processors import LogitsProcessor
    from arlm.training.objectives import Objective

    bases: dict[str, type] = {
        "model.net": Autoregressor,
        "model.optimizer": Optimizer,
        "model.scheduler": LRScheduler,
        "model.objective": Objective,
        "model.sampler.processors": LogitsProcessor,
        "trainer.callbacks": Callback,
        "trainer.logger": Logger,
    }
    return [bases[key]] if key in bases else []


def _subclasses(base: type) -> list[str]:
    """Names of all imported subclasses."""
    found: list[str] = []
    kinds: list[type] = base.__subclasses__()
    for kind in kinds:
        found += [kind.__name__, *_subclasses(kind)]
    return [name for name in dict.fromkeys(found) if not name.startswith("_")]
