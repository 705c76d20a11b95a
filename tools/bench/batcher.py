"""Continuous batching beside equal rows, and beside transformers in static batches.

python -m tools.bench.batcher [--requests 200] [--slots 16] [--block 8] [--rounds 2] [--only GPT]

Prompts have 1 to 100 tokens, budgets 1 to 100 more; `tokens/s` counts the tokens that were asked for and drawn, in
CPU time. `equal rows` is one `generate` of as many rows as there are slots, all of the mean prompt and budget. `static` pads the requests in the order of their arrival to batches of as many rows, each of which runs to
its largest budget: `generate` here, and a GPT-2 of the same size with random weights in transformers (optional).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec
from arlm.inference.batcher import Batcher
from arlm.inference.memory import keep_freed_memory
from arlm.inference.requests import Request
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import generate
from tools.bench.timing import machine, median

LENGTH, VOCABULARY, LARGEST = 200, 256, 100
NETWORKS: dict[str, Callable[[], Autoregressor]] = {
    "GPT 6 x 384 (10M)": lambda: TransformerLanguageModel(Spec(VOCABULARY, (LENGTH,)), 384, 6, 6),
    "LSTM 2 x 650": lambda: LSTMLanguageModel(Spec(VOCABULARY, (LENGTH,)), width=650),
}
Action = Callable[[], int]  # returns the number of tokens that were asked for and drawn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    print(machine())
    for name, build in NETWORKS.items():
        if options.only in name:
            torch.manual_seed(0)
            compare(name, build().eval(), options)


def compare(name: str, net: Autoregressor, options: argparse.Namespace) -> None:
    """Print the speeds of one network."""
    prompts = [torch.randint(VOCABULARY, (size,)) for size in sizes(options.requests)]
    budgets = sizes(options.requests)
    asked = [
        Request(prompt, seed, budget)
        for seed, (prompt, budget) in enumerate(zip(prompts, budgets, strict=True))
    ]
    actions: dict[str, Action] = {
        "equal rows": lambda: equal_rows(net, options.slots),
        "batcher": lambda: served(net, asked, options),
        "static, arlm": lambda: static(net, asked, options.slots),
    }
    if isinstance(net, TransformerLanguageModel) and (theirs := gpt2()):
        actions["static, transformers"] = lambda: theirs(asked, options.slots)
    speeds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(options.rounds + 1):  # the first one warms up
        for what, action in actions.items():
            started = time.process_time()
            tokens = action()
            if turn:
                speeds[what].append(tokens / (time.process_time() - started))
    print(f"{name}: {options.requests} requests, {sum(budgets)} tokens, {options.slots} slots")
    print(f"  {'':22}{'tokens/s':>9}{'of equal rows':>15}")
    for what, each in speeds.items():
        of_equal = median([a / b for a, b in zip(each, speeds["equal rows"], strict=True)])
        print(f"  {what:22}{median(each):9.0f}{of_equal:15.2f}", flush=True)


def sizes(count: int) -> list[int]:
    """Lengths of prompts, or budgets."""
    return (1 + torch.randint(LARGEST, (count,))).tolist()


def equal_rows(net: Autoregressor, rows: int) -> int:
    """One call of `generate`."""
    prompt = torch.randint(VOCABULARY, (rows, LARGEST // 2))
    generate(net, range(rows), LARGEST, forced=prompt)
    return rows * (LARGEST // 2)


def served(net: Autoregressor, asked: list[Request], options: argparse.Namespace) -> int:
    """All requests through a batcher."""
    found = Batcher(net, options.slots, LENGTH, block=options.block).run(asked)
    return sum(len(update.tokens) for update in found)


def static(net: Autoregressor, asked: list[Request], rows: int) -> int:
    """All requests in batches, one after the other; each row stops at its own budget, each batch at the largest."""
    for first in range(0, len(asked), rows):
        batch = asked[first : first + rows]
        forced = torch.nn.utils.rnn.pad_sequence(
            [one.prompt for one in batch], batch_first=True, padding_value=-1
        )
        lengths = [len(one.prompt) + one.new_tokens for one in batch]
        seeds = [one.seed for one in batch]
        generate(net, seeds, max(lengths), forced=forced, lengths=lengths)
    return sum(one.new_tokens for one in asked)


def gpt2() -> Callable[[list[Request], int], int] | None:
    """Draws requests in batches with transformers; None where it is not installed."""
    try:
        import transformers
    except ImportError:
        return None
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=384,
        n_layer=6,
        n_head=6,
        n_positions=2 * LENGTH,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config).eval()

    def draw(asked: list[Request], rows: int) -> int:
        for first in range(0, len(asked), rows):
            batch = asked[first : first + rows]
            longest = max(len(one.prompt) for one in batch)
            tokens = torch.zeros(len(batch), longest, dtype=torch.long)
            mask = torch.zeros_like(tokens)
            for row, one in enumerate(batch):  # on the left, as `generate` of transformers needs it
                tokens[row, longest - len(one.prompt) :] = one.prompt
                mask[row, longest - len(one.prompt) :] = 1
            most = max(one.new_tokens for one in batch)
            found: Tensor = model.generate(
                tokens, attention_mask=mask, max_new_tokens=most, do_sample=True, top_k=0
            )
            assert found.shape[1] == longest + most
        return sum(one.new_tokens for one in asked)

    return draw


if __name__ == "__main__":
    main()
