"""RNN or transformer? Compare an LSTM and a GPT of equal size, trained for equal tokens and for equal time.

python examples/rnn_vs_transformer.py --out study [--corpora shakespeare docs] [--seeds 3] [--steps 800] [--precision bf16-mixed]

Trains the transformer (`configs/text/study_transformer.yaml`) and the LSTM (`configs/text/study_lstm.yaml`) for the
same number of tokens, then the LSTM again for the wall time of the transformer, each with several seeds.
Runs follow one another, so that wall times can be compared. `arlm compare` then scores all of them on the
same test tokens and writes a report for each corpus. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from arlm import checkpoints

CONFIGS = Path(__file__).parents[1] / "configs"
TRANSFORMER, LSTM = "study_transformer", "study_lstm"
DATA = {"shakespeare": "shakespeare", "docs": "python_docs"}


def arlm(arguments: str) -> None:
    """Print and run one command; exit if it fails."""
    print(f"\n$ python -m arlm {arguments}", flush=True)
    process = subprocess.run([sys.executable, "-m", "arlm", *shlex.split(arguments)])
    if process.returncode:
        sys.exit(process.returncode)


def train(
    config: str, data: str, precision: str, steps: int, seed: int, out: Path, name: str
) -> Path:
    """Train one run, unless it is finished already; returns its folder."""
    run = out / "runs" / name
    if not list(run.rglob("finished")):
        data_file = CONFIGS / "data" / f"{data}.yaml"
        batching = "--data.batching continuous --data.length 64 --data.batch_size 32"
        arlm(
            f"fit --config {CONFIGS / 'text' / config}.yaml --data {data_file} "
            f"{batching if config == LSTM else '--data.length 128 --data.batch_size 16'} "
            f"--seed_everything {seed} --data.seed {seed} --trainer.max_steps {steps} "
            f"--trainer.precision {precision} --trainer.val_check_interval {steps // 4} "
            f"--trainer.logger.save_dir {run.parent} --trainer.logger.name {run.name}"
        )
        (run / "finished").touch()
    return run


def seconds(runs: list[Path]) -> float:
    """Median wall time of the runs."""
    return statistics.median(checkpoints.read(last(run))["effort"]["seconds"] for run in runs)


def last(run: Path) -> Path:
    """The checkpoint at the end of a run."""
    return next(run.rglob("last.ckpt"))


def main() -> None:
    """Train all runs of each corpus and compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("study"))
    parser.add_argument("--corpora", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--steps",
        type=int,
        default=800,
        help="training steps of 2,048 tokens; a multiple of 4 (default 800)",
    )
    parser.add_argument(
        "--precision",
        default="bf16-mixed",
        help="of the training; 32-true is faster on a CPU without AMX (default bf16-mixed)",
    )
    options = parser.parse_args()
    seeds = range(options.seeds)
    for corpus in options.corpora:
        data, out = DATA[corpus], options.out
        given = {"data": data, "out": out, "precision": options.precision}
        transformer_runs = [
            train(
                TRANSFORMER, steps=options.steps, seed=s, name=f"{corpus}_transformer_{s}", **given
            )
            for s in seeds
        ]
        lstm_runs = [
            train(LSTM, steps=options.steps, seed=s, name=f"{corpus}_lstm_tokens_{s}", **given)
            for s in seeds
        ]
        steps_same_time = 4 * max(
            1, round(options.steps / 4 * seconds(transformer_runs) / seconds(lstm_runs))
        )
        longer_runs = [
            train(LSTM, steps=steps_same_time, seed=s, name=f"{corpus}_lstm_time_{s}", **given)
            for s in seeds
        ]
        groups = {
            "transformer": transformer_runs,
            "lstm_same_tokens": lstm_runs,
            "lstm_same_time": longer_runs,
        }
        named = " ".join(
            f"{name}={','.join(str(last(run)) for run in runs)}" for name, runs in groups.items()
        )
        arlm(f"compare {named} --out {out / corpus}.html")
        (out / f"{corpus}.json").write_text(
            json.dumps({"steps": options.steps, "steps_same_time": steps_same_time}) + "\n"
        )


if __name__ == "__main__":
    main()
