"""Crafted files: pickles and names that would run code, and sizes that would take all memory or all time.

Code would write the file CANARY into the working folder. Crafted checkpoints are written by arlm's own writer, so their
checksums are right.
"""

from __future__ import annotations

import builtins
import json
import os
import pickle
import random
import runpy
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from arlm.checkpoints.describe import entry_checksum
from tools.faults import bombs
from tools.faults.damage import LARGEST, read, verdict
from tools.faults.inputs import (
    CANARY,
    FIT,
    PAIRS,
    RESUME,
    SCORE,
    TEXT,
    TRIAL,
    Reader,
    prepare_inputs,
    reader,
)  # fmt: skip
from tools.faults.references import Reference
from tools.faults.table import Table

FAULT = "crafted file"
Craft = Callable[[Path], None]  # changes a folder of sound files
CODE = f"open({CANARY!r}, 'w').close()"
LAST = "runs/half/version_0/checkpoints/last.ckpt"
CHECKPOINT = (
    reader("show", TEXT),
    reader("runs", "runs"),
    reader("sample", TEXT, "-n", "1", "--max-new-tokens", "9"),
    SCORE["text"],
    reader("evaluate", TEXT, "--json"),
    reader("compare", TEXT, TEXT),
)


class Call:
    """Pickled, it calls a function when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


CALLS = {
    "os.system": Call(os.system, f"touch {CANARY}"),
    "eval": Call(builtins.eval, f"open({CANARY!r}, 'w').close()"),
    "exec": Call(builtins.exec, CODE),
    "subprocess": Call(subprocess.Popen, ["touch", CANARY]),
    "open": Call(builtins.open, CANARY, "w"),
    "runpy": Call(runpy.run_path, "evil.py"),
}
CLASSES = ("os.system", "subprocess.Popen", "builtins.eval", "evil.Net", "evil", "runs.evil.Net", "arlm.cli.trainer.main",
           "arlm.core.Autoregressor", "torch.nn.Linear", "__main__.Call", "datamodules.evil.Net")  # fmt: skip


def inject(
    table: Table, work: Path, noise: random.Random, times: int, wholes: Sequence[Reference]
) -> None:
    """Read every crafted file with `times` of the commands that read such files."""
    inputs = prepare_inputs(work, wholes)
    (inputs.sound / "evil.py").write_text(f"{CODE}\n\n\nclass Net:\n    pass\n")
    for group, name, craft, readers in crafted():
        for each in noise.sample(list(readers), min(times, len(readers))):
            result = read(inputs, each, craft)
            table.injected(FAULT, group)
            if each.long and result.ended.hung and result.ended.peak <= LARGEST:
                continue
            harm = verdict(result, None, inputs.place)
            if harm:
                table.harm(FAULT, group, harm[0], f"{name}, {each.verb}: {harm[1]}")


def crafted() -> list[tuple[str, str, Craft, Sequence[Reader]]]:
    """Every crafted file: its row in the table, what it is, how it is made, and the commands that read it."""
    cases: list[tuple[str, str, Craft, Sequence[Reader]]] = []
    calls, names, sizes = "pickled calls", "class paths", "sizes that take memory or time"
    for name, call in CALLS.items():
        archive = partial(evil_entry, path=TEXT, call=call)
        cases.append((calls, f"checkpoint with a pickled call of {name}", archive, CHECKPOINT))
        resumed = partial(evil_entry, path=LAST, call=call)
        cases.append((calls, f"last.ckpt with a pickled call of {name}", resumed, [RESUME]))
        bare = partial(write, path=TEXT, content=pickle.dumps(call))
        cases.append((calls, f"pickle of {name} as a checkpoint", bare, CHECKPOINT[:3]))
    for part in ("network", "domain", "data"):
        for name in CLASSES:
            craft = partial(described, part=part, change={"class_path": name})
            cases.append((names, f"checkpoint whose {part} is a {name}", craft, CHECKPOINT[2:5]))
    for width in (10**7, 2**63, -1, 1e300, "8", None, [8]):
        craft = partial(described, part="network", change={"init_args": {"width": width}})
        cases.append((sizes, f"checkpoint of width {width}", craft, CHECKPOINT[:4]))
    cases += [
        (
            sizes,
            "checkpoint of a deep description",
            partial(described, part="network", change=deep(5000)),
            CHECKPOINT[:3],
        ),
        (
            sizes,
            "checkpoint of a huge description",
            partial(described, part="network", change={"x": "y" * 10**7}),
            CHECKPOINT[:3],
        ),
        (sizes, "compressed checkpoint of 1 GiB of zeros", bombs.bomb_archive, CHECKPOINT[:3]),
        (calls, "documents of a corpus as a pickled call", evil_documents, [RESUME]),
        (sizes, "corpus.json of a deep list", deep_index, [RESUME]),
        (
            sizes,
            "gz of 5 GiB",
            bombs.bomb_gz,
            [SCORE["gz"], reader("translate", PAIRS, "text.gz"), FIT["gz"]],
        ),
        (
            sizes,
            "text of one line of 100 MB",
            bombs.one_line,
            [
                reader("translate", PAIRS, "few.txt"),
                reader("score", TEXT, "few.txt", "--json", long=True),
            ],
        ),
        (sizes, "PNG of 60,000 x 60,000 pixels", bombs.bomb_png, [FIT["images"], SCORE["image"]]),
        (
            sizes,
            "PNG with a zTXt chunk of 1 GiB",
            bombs.bomb_text_chunk,
            [FIT["images"], SCORE["image"]],
        ),
        (sizes, "named pipe among pictures", bombs.pipe, [FIT["images"]]),
        (sizes, "folder named as a picture", bombs.folder_named_png, [FIT["images"]]),
        (sizes, "link to itself among pictures", bombs.loop, [FIT["images"]]),
        (sizes, "device as a checkpoint", bombs.device, CHECKPOINT[:3]),
    ]
    for name, change in TOKENIZERS.items():
        cases.append(
            (
                "tokenizers",
                f"tokenizer with {name}",
                partial(tokenizer, change=change),
                [FIT["tokenizer"]],
            )
        )
    yaml_config = reader("fit", "--config", "evil.yaml", *TRIAL)
    yaml_data = reader("evaluate", TEXT, "--data", "evil.yaml")
    for name, text in YAMLS.items():
        craft = partial(write, path="evil.yaml", content=text.encode())
        cases.append(("YAML", f"YAML with {name}", craft, [yaml_config, yaml_data]))
    return cases


def write(folder: Path, path: str, content: bytes) -> None:
    """Write a file."""
    (folder / path).write_bytes(content)


def evil_entry(folder: Path, path: str, call: Call) -> None:
    """Add an entry to a checkpoint that calls a function when it is unpickled."""
    contents = torch.load(folder / path, weights_only=True)
    save(contents | {"hyper_parameters": call}, folder / path)


def described(folder: Path, part: str, change: Any) -> None:
    """Change a part of the description in a checkpoint; its checksum is right."""
    contents = torch.load(folder / TEXT, weights_only=True)
    entry = dict(contents["arlm"])
    text = json.loads(entry[part])
    if isinstance(change, str):
        entry[part] = change
    elif "init_args" in change:
        entry[part] = json.dumps(text | {"init_args": text["init_args"] | change["init_args"]})
    else:
        entry[part] = json.dumps(text | change)
    entry["checksum"] = entry_checksum(entry)
    save(contents | {"arlm": entry}, folder / TEXT)


def save(contents: dict[str, Any], path: Path) -> None:
    """Write a checkpoint as a run does."""
    from arlm.training.callbacks import AtomicCheckpointIO

    AtomicCheckpointIO().save_checkpoint(contents, path)


def deep(levels: int) -> str:
    """JSON text of nested lists."""
    return "[" * levels + "]" * levels


def evil_documents(folder: Path) -> None:
    """Starts of a corpus' documents as a pickle that calls a function."""
    for path in prepared(folder, "documents.*"):
        path.write_bytes(pickle.dumps(CALLS["os.system"]))


def prepared(folder: Path, name: str) -> list[Path]:
    """The files of a name in prepared corpora, of which there are some."""
    found = list(folder.glob(f"cache/arlm/prepared/*/{name}"))
    assert found, f"no {name} in a prepared corpus"
    return found


def deep_index(folder: Path) -> None:
    """Indices of corpora as deep lists."""
    for path in prepared(folder, "corpus.json"):
        path.write_text(deep(100_000))


def tokenizer(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the JSON of the tokenizer."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def added(number: int, content: str = "<x>") -> dict[str, Any]:
    """An added token of a tokenizer."""
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": number, "content": content} | dict.fromkeys(names, False)


def grow(vocabulary: dict[str, Any], number: int) -> None:
    """Give a token a number far above the others."""
    vocabulary["far"] = number


TOKENIZERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an id of 4e9": lambda c: grow(c["model"]["vocab"], 4_000_000_000),
    "an id of 2e8": lambda c: grow(c["model"]["vocab"], 200_000_000),
    "an added id of 4e9": lambda c: c["added_tokens"].append(added(4_000_000_000)),
    "a malformed charsmap": lambda c: c.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA/w=="}),
    "an empty charsmap": lambda c: c.update(normalizer={"type": "Precompiled", "precompiled_charsmap": ""}),
    "no vocabulary": lambda c: c["model"].update(vocab={}, merges=[]),
    "merges of unknown tokens": lambda c: c["model"]["merges"].append(["qqq", "zzz"]),
    "an expensive pattern": lambda c: c.update(normalizer={"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}),
    "a bad pattern": lambda c: c.update(normalizer={"type": "Replace", "pattern": {"Regex": "(("}, "content": "b"}),
    "a prepended text of 100 MB": lambda c: c.update(normalizer={"type": "Prepend", "prepend": "a" * 10**8}),
}  # fmt: skip
YAMLS = {
    "a Python call": f"!!python/object/apply:os.system ['touch {CANARY}']\n",
    "a Python object": f"data: !!python/object/new:subprocess.Popen [[touch, {CANARY}]]\n",
    "a Python name": "class_path: !!python/name:os.system\ninit_args: {}\n",
    "an alias of itself": "a: &a\n  b: *a\n",
    "aliases of aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{b}: &{b} [{','.join(f'*{a}' for _ in range(9))}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "deep lists": deep(20_000),
    "a class that is a function": f"class_path: os.system\ninit_args: {{command: touch {CANARY}}}\n",
    "a class of the working folder": "class_path: evil.Net\ninit_args: {}\n",
}
