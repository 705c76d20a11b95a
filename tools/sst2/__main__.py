"""The commands of the study; see `tools/sst2/__init__.py`."""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import yaml

from arlm import checkpoints
from arlm.__main__ import fail
from arlm.cli.parser import Parser
from arlm.errors import UserError, require
from arlm.evaluation.classification import mcnemar
from arlm.evaluation.proportion import proportion
from arlm.inference.classification import split_log_prob
from arlm.inference.runs import open_run
from arlm.training.learning_rates import LearningRates
from datamodules.sst2 import SST2
from tools.sst2 import __doc__ as about
from tools.sst2.baselines import predictions
from tools.sst2.rows import NAMES, NEEDS, pretraining, row
from tools.sst2.text import write_reviews

FIELDS = ("row", "seed", "accuracy", "low", "high", "parameters", "trained", "seconds")
STEPS = {"lstm": 6000, "transformer": 6000, "vectors": 3000}


def fit(folder: Path, name: str, config: dict[str, Any], more: list[str]) -> float:
    """Train a run in the folder; returns the seconds."""
    (folder / "configs").mkdir(exist_ok=True)
    path = folder / "configs" / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [
        sys.executable,
        "-m",
        "arlm",
        "fit",
        "--config",
        f"configs/{name}.yaml",
        "--run-name",
        name,
        *more,
    ]
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": search}, check=False)
    if done.returncode:
        raise UserError(f"{name}: `arlm fit` ended with {done.returncode}; see above")
    return time.monotonic() - started


def pretrain(options: argparse.Namespace) -> None:
    """Pre-train a language model, or word vectors, unless that was done."""
    name = f"pretrain-{options.kind}"
    steps = STEPS[options.kind] if options.steps is None else options.steps
    options.folder.mkdir(parents=True, exist_ok=True)
    run = options.folder / "runs" / name
    if run.exists():
        done = steps_done(run)
        if done == steps:
            print(f"{run} is there already")
            return
        raise UserError(
            f"{run}: it has {done} of {steps} steps; remove it, or choose another --folder"
        )
    fit(options.folder, name, pretraining(options.kind, steps), [])


def steps_done(run: Path) -> int:
    """Steps of the newest last.ckpt of a run; 0 if there is none."""
    found = sorted(run.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    return int(checkpoints.summarise(found[-1]).run.get("step", 0)) if found else 0


def one_row(options: argparse.Namespace) -> None:
    """Run a row with a seed, and append it to results.csv, unless it is there."""
    name, seed, folder = options.name, options.seed, options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if (name, str(seed)) in {(r["row"], r["seed"]) for r in results(folder)}:
        print(f"{name}, seed {seed} is in {folder / 'results.csv'} already")
        return
    data, started = SST2(), time.monotonic()
    labels = [e.label for e in data.examples("test")]
    if name in ("majority", "tfidf"):
        predicted, parameters = predictions(name)
        trained, seconds = parameters, time.monotonic() - started
    else:
        how, kind = name.split("-")
        if how in NEEDS:
            needed = f"pretrain-{NEEDS[how].format(kind=kind)}"
            if not steps_done(folder / "runs" / needed):
                raise UserError(
                    f"{name}: there is no {folder / 'runs' / needed}; run `python -m tools.sst2 pretrain` first"
                )
        run = f"{name}-{seed}"
        config = row(name, seed, options.epochs)
        seconds = fit(folder, run, config, [])
        opened = open_run(str(folder / "runs" / run))
        net, domain = opened.loaded.net, opened.loaded.domain
        log_prob, truth = split_log_prob(net, opened.data, "test")
        classes: Any = domain
        predicted = [classes.classes[i] for i in log_prob.argmax(-1).tolist()]
        assert [classes.classes[i] for i in truth.tolist()] == labels
        # A checkpoint does not say which parameters had the learning rate 0.
        LearningRates(config["model"].get("learning_rates")).freeze(net)
        parameters = sum(p.numel() for p in net.parameters())
        trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    (folder / "predictions").mkdir(exist_ok=True)
    (folder / "predictions" / f"{name}-{seed}.txt").write_text("\n".join(predicted) + "\n")
    right = sum(a == b for a, b in zip(predicted, labels, strict=True))
    found = proportion(right, len(labels))
    values = (name, seed, *(f"{v:.4f}" for v in found), parameters, trained, f"{seconds:.0f}")
    path = folder / "results.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(FIELDS)
        writer.writerow(values)
    print(f"{name}, seed {seed}: accuracy {found.share:.4f} [{found.low:.4f}, {found.high:.4f}]")


def results(folder: Path) -> list[dict[str, str]]:
    """The rows of results.csv."""
    path = folder / "results.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def right_answers(folder: Path, name: str, seed: str, labels: list[str]) -> torch.Tensor:
    """Whether each test sentence was classified right, (N,) bool."""
    found = (folder / "predictions" / f"{name}-{seed}.txt").read_text().split()
    return torch.tensor([a == b for a, b in zip(found, labels, strict=True)])


def table(options: argparse.Namespace) -> None:
    """Print a row for each name: mean accuracy over the seeds, and McNemar's test against the same network from scratch."""
    found = results(options.folder)
    if not found:
        raise UserError(f"--folder: {options.folder} has no results.csv; run a row first")
    labels = [e.label for e in SST2().examples("test")]
    print(
        "| row | seeds | accuracy | 95 %, first seed | trained parameters | seconds | against scratch, first seed |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in NAMES:
        rows = [r for r in found if r["row"] == name]
        if not rows:
            continue
        accuracies = [float(r["accuracy"]) for r in rows]
        spread = f" ± {stdev(accuracies):.4f}" if len(rows) > 1 else ""
        reference = f"scratch-{name.partition('-')[2]}"
        others = [r for r in found if r["row"] == reference]
        against = ""
        if others and name != reference and "-" in name:
            pair = (name, rows[0]["seed"]), (reference, others[0]["seed"])
            test = mcnemar(*(right_answers(options.folder, *one, labels) for one in pair))
            against = f"{test.only_first}:{test.only_second}, p = {test.p:.2g}"
        interval = f"[{rows[0]['low']}, {rows[0]['high']}]"
        seconds = mean(float(r["seconds"]) for r in rows)
        print(
            f"| {name} | {len(rows)} | {mean(accuracies):.4f}{spread} | {interval} | {int(rows[0]['trained']):,} | {seconds:.0f} | {against} |"
        )


def main(arguments: list[str]) -> None:
    """Run one command."""
    parser = Parser("sst2", about or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(
        dest="command", required=True, parser_class=argparse.ArgumentParser
    )
    text = commands.add_parser("text")
    text.add_argument("source", type=Path)
    text.add_argument("--bytes", type=int, default=40_000_000)
    text.add_argument("--vocab-size", type=int, default=4000)
    trained = commands.add_parser("pretrain")
    trained.add_argument("kind", choices=list(STEPS))
    trained.add_argument("--steps", type=int)
    one = commands.add_parser("row")
    one.add_argument("name", choices=NAMES)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--epochs", type=int, help="of training; by default as in tools/sst2/rows.py")
    shown = commands.add_parser("table")
    for each in (text, trained, one, shown):
        each.add_argument("--folder", type=Path, default=Path("sst2_study"))
    options = parser.parse_args(arguments)
    for name in ("steps", "epochs"):
        value = getattr(options, name, None)
        require(value is None or value >= 1, f"--{name}", value, "choose at least 1")
    if options.command == "text":
        require(options.bytes >= 1000, "--bytes", options.bytes, "choose at least 1000")
        write_reviews(options.source, options.folder, options.bytes, options.vocab_size)
    else:
        {"pretrain": pretrain, "row": one_row, "table": table}[options.command](options)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(fail(str(error)))
