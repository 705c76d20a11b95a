"""Ways of fine-tuning one network, side by side: what is gained on the new text, and what is lost on the old one.

    python -m tools.finetuning_study --family transformer             all rows, then the table
    python -m tools.finetuning_study lora8 full --family lstm         some rows, then the table of what is there

The base is trained on Python's language reference (`base`), and then on Tiny Shakespeare in each way. Each row is a
process of its own, so that its peak memory (of training) is its own, and a file in --folder with its settings: what is
there is not run again, and is refused where its settings are others. Nats
are means over tokens of whole splits (the reference's test split, Shakespeare's held-out tenth), in windows of 128.
`bytes` is what a task has to store beside the base. Needs $ARLM_DATA_DIR.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch

from arlm import checkpoints
from arlm.__main__ import fail
from arlm.adapters import LoRA, pretrained
from arlm.core import Autoregressor, Spec
from arlm.data.order import BatchOrder
from arlm.data.windows import TextWindows
from arlm.errors import UserError
from arlm.inference.runs import read_with_tokens_of
from arlm.inference.scorer import BatchScorer, score_split
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.storage import replace_file
from arlm.training.learning_rates import LearningRates
from arlm.training.optimizers import build_optimizer, parameter_groups
from datamodules.python_docs import PythonDocs
from datamodules.text_file import TextFile
from tools.bench.step import training_step

LENGTH, ROWS = 128, 8
FAMILIES: dict[str, Callable[[Spec], Autoregressor]] = {  # 0.6 M parameters each
    "transformer": partial(TransformerLanguageModel, width=128, depth=3, heads=4),
    "lstm": partial(LSTMLanguageModel, width=188, depth=2),
}
Factory = Callable[[Spec], Autoregressor]


class Way(NamedTuple):
    """How the base is trained on."""

    make: Callable[[str], Factory]  # from the base's checkpoint
    lr: float
    rates: dict[str, float] | None = None  # of `LearningRates`
    layer_decay: float = 1.0
    only: str | None = None  # the family that has it


def adapter(**options: Any) -> Callable[[str], Factory]:
    return lambda path: lambda spec: LoRA(spec, pretrained(path), **options)


def optional(**options: Any) -> Callable[[str], Factory]:
    return lambda path: pretrained(path, options=options)


PROMPT = {"*": 0.0, "trained_prefix.*": 1.0}
WAYS = {
    "full": Way(pretrained, 1e-3),
    "full, rates by layer": Way(pretrained, 1e-3, layer_decay=0.385),
    "head": Way(pretrained, 3e-3, {"*": 0.0, "head.*": 1.0}),
    "lora1": Way(adapter(rank=1), 5e-3),
    "lora8": Way(adapter(rank=8), 5e-3),
    "lora8+": Way(adapter(rank=8, lr_ratio=16.0), 1e-3),
    "rslora64": Way(adapter(rank=64, alpha=8.0, scaling="rslora"), 5e-3),
    "prompt16": Way(optional(prompt_vectors=16), 5e-2, PROMPT, only="transformer"),
    "prefix16": Way(optional(prefix_vectors=16), 5e-2, PROMPT, only="transformer"),
    "state": Way(
        optional(trained_state=True), 5e-2, {"*": 0.0, "initial_state.*": 1.0}, only="lstm"
    ),
}


def data_of(base: Path | None = None) -> tuple[PythonDocs, TextFile]:
    """The old text, and the new one with the old one's tokens."""
    old = PythonDocs(LENGTH)
    new = TextFile("tinyshakespeare/input.txt", "character", one_held_out=True, length=LENGTH)
    if base is not None:
        read_with_tokens_of(new, str(base))
    return old, new


def train(
    net: Autoregressor, data: PythonDocs | TextFile, steps: int, lr: float, rates: LearningRates
) -> float:
    """AdamW with warm-up and a cosine to zero; returns the seconds."""
    rates.freeze(net)
    torch.manual_seed(0)
    groups = parameter_groups(net, rates=rates)
    optimizer = build_optimizer(
        partial(torch.optim.AdamW, lr=lr, betas=(0.9, 0.95), weight_decay=0.01), groups
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    dataset = TextWindows(data.corpus("train"), data.domain, LENGTH)
    order = BatchOrder(len(dataset), ROWS, True, seed=0)

    def batches():
        for epoch in count():
            order.set_epoch(epoch)
            yield from (dataset[rows] for rows in order)

    run_step = training_step(BatchScorer(net.train()), batches(), optimizer, False, 1.0)
    started = time.perf_counter()
    for step in range(steps):
        factor = min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        run_step()
    return time.perf_counter() - started


def nats(net: Autoregressor, data: PythonDocs | TextFile, split: Any, batches: int | None) -> float:
    """Mean nats of a split's tokens, of its first batches only if their number is given."""
    dataset = TextWindows(data.corpus(split), data.domain, LENGTH, LENGTH)
    order = list(BatchOrder(len(dataset), 32, False))[:batches]
    return float(score_split(net.eval(), dataset, order).nats.mean())


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    torch.set_num_threads(1)
    base = options.folder / f"{options.family}.ckpt"
    if name == "base":
        old, _ = data_of()
        torch.manual_seed(0)
        net = FAMILIES[options.family](old.spec)
        seconds = train(net, old, options.base_steps, 3e-3, LearningRates())
        peak = peak_megabytes()
        checkpoints.save(base, net, old)
        old, new = data_of(base)
        size, stored = sum(p.numel() for p in net.parameters()), 0
    else:
        way = WAYS[name]
        old, new = data_of(base)
        torch.manual_seed(0)
        net = way.make(str(base))(new.spec)
        rates = LearningRates(way.rates, way.layer_decay)
        seconds = train(net, new, options.steps, way.lr, rates)
        peak = peak_megabytes()
        size = sum(p.numel() for p in net.parameters() if p.requires_grad)
        stored = sum(p.numel() * p.element_size() for p in net.parameters() if p.requires_grad)
    return {
        "new": nats(net, new, "val", options.batches),
        "old": nats(net, old, "test", options.batches),
        "parameters": size,
        "bytes": stored,
        "peak": peak,
        "seconds": seconds,
        "settings": settings(name, options),
    }


def peak_megabytes() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def settings(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the figures of a row depend on."""
    found = {"base_steps": options.base_steps, "batches": options.batches}
    return found if name == "base" else found | {"steps": options.steps}


def read(file: Path, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A row of an earlier run, or a UserError if it has other settings."""
    row = json.loads(file.read_text())
    before = row.get("settings", {})
    for key, value in settings(name, options).items():
        if key not in before or before[key] != value:
            raise UserError(
                f"--{key.replace('_', '-')}: {value} given, but {file} has {before.get(key, 'no settings')}; "
                "remove it, or choose another --folder"
            )
    return row


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown; the base's old figure is the one before."""
    before = rows["base"]["old"]
    lines = [
        "| way | new text, nats/token | old text, nats/token | change | parameters trained | bytes a task | peak MB | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['new']:.4f} | {row['old']:.4f} | {row['old'] - before:+.4f} | "
            f"{row['parameters']:,} | {row['bytes']:,} | {row['peak']:.0f} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rows that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("rows", nargs="*", help="base, " + ", ".join(WAYS) + "; by default all")
    parser.add_argument("--family", choices=list(FAMILIES), default="transformer")
    parser.add_argument("--base-steps", type=int, default=1800)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batches", type=int, help="of each evaluation; by default all")
    parser.add_argument("--folder", type=Path, default=Path("runs/finetuning_study"))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    known = ["base", *(n for n, way in WAYS.items() if way.only in (None, options.family))]
    if unknown := [name for name in options.rows if name not in known]:
        raise UserError(
            f"rows: {unknown[0]!r} is none of --family {options.family}; choose among {', '.join(known)}"
        )
    names = [name for name in known if name in (options.rows or known) or name == "base"]
    options.folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in names:
        file = options.folder / f"{options.family}_{name.replace(' ', '_')}.json"
        if options.here:
            if name in options.rows:
                replace_file(file, json.dumps(run(name, options)).encode())
            continue
        if not file.exists():
            command = [
                sys.executable,
                "-m",
                "tools.finetuning_study",
                name,
                *given,
                "--here",
            ]
            words = [w for w in command if w not in (options.rows or []) or w == name]
            subprocess.run(words, check=True)
        found[name] = read(file, name, options)
    if not options.here:
        print(table(found))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(fail(str(error)))
