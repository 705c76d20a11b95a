"""Rows of different prompts and budgets in one batch, against one call for each row.

python -m tools.bench.ragged [--rows 16] [--slots 16] [--threads 2] [--rounds 5]

Prompts have 1 to 100 tokens, budgets 1 to 100 more. `one batch` draws all rows in one `generate`; `slots` draws
them through fewer slots, where waiting rows take the place of rows that have ended; `row by row` makes a call
for each. `differ` counts the float32 tokens that differ from the row by row result (a number on the border of
two tokens may fall to either side). `moved` is what one replaced row copies, beside the whole cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from arlm.core import Autoregressor, Spec
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import SamplerState, Steps, begin, generate, row_seeds, seed_tensor
from tools.bench.timing import interleaved, machine, median

LENGTH = 200
NETWORKS: dict[str, Callable[[], Autoregressor]] = {
    "GPT 6 x 384 (10M)": lambda: TransformerLanguageModel(Spec(256, (LENGTH,)), 384, 6, 6),
    "LSTM 2 x 650": lambda: LSTMLanguageModel(Spec(256, (LENGTH,)), width=650),
}


class BytesWritten(TorchDispatchMode):
    """Adds the bytes that operations write: new results, and what is written in place."""

    total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        written = result
        if function._schema.name == "aten::index_put_":
            written = arguments[2]  # the rows, not the whole tensor
        elif not function._schema.is_mutable and _shares_memory(result, arguments):
            written = None  # a view
        if isinstance(written, Tensor):
            share = 1.0
            if function._schema.name == "aten::index_fill_":  # (tensor, axis, rows, value)
                share = len(arguments[2]) / written.shape[arguments[1]]
            self.total += int(share * written.numel() * written.element_size())
        return result


def _shares_memory(result: Any, arguments: Any) -> bool:
    """Whether a result is a view of an argument."""
    parts = [part for part in arguments if isinstance(part, Tensor)]
    if not isinstance(result, Tensor):
        return False
    memory = [part.untyped_storage().data_ptr() for part in (result, *parts)]
    return memory[0] in memory[1:]


def through_slots(
    net: Autoregressor, forced: Tensor, seeds: Tensor, limits: Tensor, slots: int, block: int = 8
) -> Tensor:
    """Tokens (N, T) of all rows, drawn in `slots` slots."""
    count = len(forced)

    def begun(rows: list[int]) -> SamplerState:
        return begin(net, forced[rows], seeds[rows], (), None, limits[rows], torch.tensor(rows))

    tokens = torch.zeros_like(forced)
    steps, following = Steps(net, begun(list(range(slots))), block=block), slots
    while following < count or not bool(steps.state.ended.all()):
        next(steps, None)
        state = steps.state
        tokens[state.rows] = state.tokens
        free = state.ended.nonzero().flatten()[: count - following]
        if len(free):
            rows = list(range(following, following + len(free)))
            steps.state, following = state.assign(free, begun(rows)), following + len(free)
    tokens[steps.state.rows] = steps.state.tokens
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--slots", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine())
    for name, build in NETWORKS.items():
        if options.only in name:
            compare(name, build, options)


def compare(name: str, build: Callable[[], Autoregressor], options: argparse.Namespace) -> None:
    """Print the times of one network's strategies, and how many tokens differ."""
    torch.manual_seed(0)
    net, rows, seeds = build().eval(), options.rows, row_seeds(0, options.rows)
    prompts, budgets = (1 + torch.randint(100, (rows,)) for _ in range(2))
    tokens, limits = torch.randint(256, (rows, LENGTH)), prompts + budgets
    forced = tokens.where(torch.arange(LENGTH) < prompts[:, None], -1)
    of_rows = seed_tensor(seeds)
    found: dict[str, Tensor] = {}

    def alone() -> None:
        each = [
            generate(net, [seeds[i]], LENGTH, forced=forced[i : i + 1], lengths=[int(limits[i])])
            for i in range(rows)
        ]
        found["row by row"] = torch.cat([one.tokens for one in each])

    def together() -> None:
        drawn = generate(net, seeds, LENGTH, forced=forced, lengths=limits.tolist())
        found["one batch"] = drawn.tokens

    actions: dict[str, Callable[[], object]] = {"row by row": alone, "one batch": together}
    for slots in options.slots:

        def through(slots: int = slots) -> None:
            found[f"{slots} slots"] = through_slots(net, forced, of_rows, limits, slots)

        actions[f"{slots} slots"] = through
    seconds = interleaved(actions, options.rounds)
    slowest = median(seconds["row by row"])
    inside = (torch.arange(LENGTH) >= prompts[:, None]) & (torch.arange(LENGTH) < limits[:, None])
    print(f"{name}: {rows} rows, {int(inside.sum())} tokens drawn")
    for strategy, times in seconds.items():
        differ = int(((found[strategy] != found["row by row"]) & inside).sum())
        ratio = median(times) / slowest
        print(
            f"  {strategy:12} {median(times):7.2f} s  {ratio:6.3f} of row by row  {differ} differ"
        )
    state = begin(net, forced, of_rows, (), None, limits)
    new = begin(net, forced[:1], of_rows[:1], (), None, limits[:1])
    whole = sum(part.numel() * part.element_size() for part in state.network.leaves())
    with BytesWritten() as written:
        state.assign(torch.tensor([rows - 1]), new)
    print(f"  one row replaced: {written.total / 1e6:.2f} MB moved, state {whole / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
