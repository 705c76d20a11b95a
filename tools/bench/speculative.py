"""Speculative decoding against plain steps, row by row: acceptance, passes and seconds, for several drafts.

python -m tools.bench.speculative RUN --draft ngram --draft RUN --draft lookup [--tokens 2 4 8] [--threads 1]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

from arlm import load
from arlm.core import Autoregressor
from arlm.inference.baselines import ngram
from arlm.inference.runs import open_run
from arlm.sampling import (
    Draft,
    Gumbel,
    NetworkDraft,
    Noise,
    PromptLookup,
    Speculative,
    Uniform,
    generate,
    row_seeds,
    speculative,
)
from arlm.sampling.processors import LogitsProcessor, parse_processors
from tools.bench.timing import interleaved, machine, median

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def open_draft(name: str, run: str) -> Draft:
    """The draft of a name, as for `arlm sample --draft`."""
    if name == "lookup":
        return PromptLookup()
    if name == "ngram":
        return NetworkDraft(ngram(open_run(run).data))
    return NetworkDraft(load(name).net)


class Rows:
    """Rows of one network, one after the other, with and without a draft."""

    def __init__(
        self,
        net: Autoregressor,
        length: int,
        seeds: list[int],
        noise: Noise,
        processors: tuple[LogitsProcessor, ...],
    ) -> None:
        self.net, self.length, self.seeds = net, length, seeds
        self.given = {"noise": noise, "processors": processors}

    def plain(self) -> list[torch.Tensor]:
        return [
            generate(self.net, [seed], self.length, **self.given).tokens  # type: ignore[arg-type]
            for seed in self.seeds
        ]

    def drafted(self, draft: Draft, count: int) -> list[Speculative]:
        more = {"draft": draft, "draft_tokens": count, **self.given}
        return [speculative(self.net, [seed], self.length, **more) for seed in self.seeds]  # type: ignore[arg-type]


def main() -> None:
    """Print a line for each draft and number of proposals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a .ckpt file or the folder of a run, of texts")
    parser.add_argument(
        "--draft", action="append", required=True, help="a run, ngram or lookup; several times"
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--noise", choices=["gumbel", "uniform"], default="gumbel")
    parser.add_argument("--processors", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu where others share the machine",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    net = load(options.run).net
    length = net.spec.length
    noise = Gumbel() if options.noise == "gumbel" else Uniform()
    chain = parse_processors(options.processors)
    rows = Rows(net, length, row_seeds(0, options.rows), noise, chain)
    drafts = {name: open_draft(name, options.run) for name in options.draft}
    size = sum(weight.numel() for weight in net.parameters()) / 1e6
    print(
        f"{machine()} | {type(net).__name__}, {size:.1f} M parameters, {options.rows} rows of {length} "
        f"tokens, one at a time, {options.noise} noise, {options.clock} time"
    )
    expected = rows.plain()
    actions: dict[str, Callable[[], object]] = {"steps": rows.plain}
    pairs = [(name, count) for name in drafts for count in options.tokens]
    for name, count in pairs:
        actions[f"{name} {count}"] = partial(rows.drafted, drafts[name], count)
    seconds = interleaved(actions, options.repeats, CLOCKS[options.clock])
    base = median(seconds["steps"])
    total = options.rows * length
    print(f"{'steps':24} {total:5} passes {1000 * base / total:6.2f} ms a token")
    for name, count in pairs:
        found = rows.drafted(drafts[name], count)
        passes, compared = sum(f.passes for f in found), sum(f.compared for f in found)
        accepted = sum(f.accepted for f in found)
        own = median(seconds[f"{name} {count}"])
        same = sum(
            bool((f.tokens == tokens).all()) for f, tokens in zip(found, expected, strict=True)
        )
        print(
            f"{name[-20:]:20} {count:3} {passes:5} passes {1000 * own / total:6.2f} ms a token, "
            f"{base / own:.2f} times as fast; {accepted / max(compared, 1):.1%} of {compared} proposals "
            f"accepted; {same} of {len(found)} rows equal",
            flush=True,
        )


if __name__ == "__main__":
    main()
