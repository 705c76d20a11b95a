"""Training steps of language models beside a peer's, in one interleaved run: tokens per second.

python -m tools.bench.language_models nanogpt PEER_FOLDER
python -m tools.bench.language_models words PEER_FOLDER [--width 650]

`nanogpt`: its model.py at its documented setting for a CPU (4 layers, 4 heads, 128 wide, rows of 64, batch
12), its optimizer and clipping, against the same network here. `words`: the model.py of pytorch/examples'
word_language_model (2 layers, batch 20 x 35, 10,000 words), its SGD and clipping, against the same network.
Each is a process of its own, for `fit` sets how its process keeps memory. PEER_FOLDER holds the peer's
model.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from arlm.core import Autoregressor, Batch, Spec
from arlm.inference.scorer import BatchScorer
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.training.optimizers import parameter_groups
from arlm.training.optimizers import Muon
from tools.bench.step import training_step
from tools.bench.timing import Action, apart, in_turn, machine, median


def peer(folder: Path) -> ModuleType:
    """The peer's model.py."""
    spec = importlib.util.spec_from_file_location("peer_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peer_model"] = module
    spec.loader.exec_module(module)
    return module


def ours(
    net: Autoregressor,
    batch: Batch,
    optimizer: Callable[[list], torch.optim.Optimizer],
    bf16: bool,
    compile: bool,
    clip: float,
) -> Action:
    """Training steps of ours."""
    steps = optimizer(parameter_groups(net))
    return training_step(BatchScorer(net, compile), repeat(batch), steps, bf16, clip)


def nanogpt(folder: Path) -> tuple[dict[str, Action], int]:
    """Steps to be compared, and the tokens of each."""
    rows, length, vocab = 12, 64, 65
    module = peer(folder)
    config = module.GPTConfig(
        block_size=length,
        vocab_size=vocab,
        n_layer=4,
        n_head=4,
        n_embd=128,
        dropout=0.0,
        bias=False,
    )
    net = module.GPT(config)
    optimizer = net.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    tokens = torch.randint(vocab, (rows, length + 1))

    def step() -> int:
        _, loss = net(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return rows * length

    def gpt() -> Autoregressor:
        return TransformerLanguageModel(
            Spec(vocab, (length,)), 128, 4, 4, "learned", bias=False, tied=True
        )

    def adamw(groups: list) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, 1e-3, (0.9, 0.99), weight_decay=0.1, fused=True)

    batch = Batch(tokens[:, :-1], torch.ones(rows, length).bool(), torch.ones(rows, length))
    steps: dict[str, Action] = {"nanoGPT, float32": step}
    for bf16, compiled in ((False, False), (True, False), (False, True), (True, True)):
        name = f"arlm, {'bf16' if bf16 else 'float32'}{', compiled' if compiled else ''}"
        steps[name] = ours(gpt(), batch, adamw, bf16, compiled, 1.0)
    steps["arlm, bf16, compiled, Muon"] = ours(gpt(), batch, Muon, True, True, 1.0)
    return steps, rows * length


def words(folder: Path, width: int) -> tuple[dict[str, Action], int]:
    """Steps to be compared, and the tokens of each."""
    rows, length, vocab = 20, 35, 10_000
    dropout = 0.2 if width < 500 else 0.5
    net = peer(folder).RNNModel("LSTM", vocab, width, width, 2, dropout)
    tokens = torch.randint(vocab, (length + 1, rows))
    carried = [net.init_hidden(rows)]

    def step() -> int:
        hidden = tuple(part.detach() for part in carried[0])
        net.zero_grad()
        output, carried[0] = net(tokens[:-1], hidden)
        nn.functional.nll_loss(output, tokens[1:].flatten()).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.25)
        for parameter in net.parameters():
            parameter.data.add_(parameter.grad, alpha=-1e-3)  # slow: random words teach nothing
        return rows * length

    def sgd(groups: list) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, 1e-3, fused=True)

    rows_first: Tensor = tokens[:-1].T.contiguous()
    continued = torch.zeros(rows, dtype=torch.bool)
    batch = Batch(
        rows_first,
        torch.ones_like(rows_first).bool(),
        torch.ones(rows_first.shape),
        None,
        continued,
    )
    steps: dict[str, Action] = {"word_language_model, float32": step}
    for bf16, compiled in ((False, False), (True, False), (True, True)):
        name = f"arlm, {'bf16' if bf16 else 'float32'}{', compiled' if compiled else ''}"
        lstm = LSTMLanguageModel(Spec(vocab, (length,)), width, 2, dropout=dropout)
        steps[name] = ours(lstm, batch, sgd, bf16, compiled, 0.25)
    return steps, rows * length


def build(options: argparse.Namespace, name: str) -> Action:
    """One of the steps."""
    return every(options)[0][name]


def every(options: argparse.Namespace) -> tuple[dict[str, Action], int]:
    """Steps by name, and the tokens of each."""
    if options.what == "nanogpt":
        return nanogpt(options.folder)
    return words(options.folder, options.width)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("what", choices=["nanogpt", "words"])
    parser.add_argument("folder", type=Path, help="of the peer's model.py")
    parser.add_argument("--width", type=int, default=200, help="of `words`")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15, help="of four steps each")
    parser.add_argument("--eager", action="store_true", help="leave out what is compiled")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps, tokens = every(options)
    names = [name for name in steps if not (options.eager and "compiled" in name)]
    print(machine())
    runs = apart(build, options, names)
    for name, run in runs.items():
        seconds = run(1) * tokens
        if "compiled" in name:
            print(f"{name}: first step {seconds:.1f} s")
    timed = in_turn(runs, 4, options.repeats)
    base = median(next(iter(timed.values())))
    for name, times in timed.items():
        middle = median(times)  # seconds a token
        each = f"{middle * tokens * 1e3:6.1f} ms, {1 / middle:8.0f} tokens/s"
        print(f"{name:32} {each}, {base / middle:.2f} times the peer")


if __name__ == "__main__":
    main()
