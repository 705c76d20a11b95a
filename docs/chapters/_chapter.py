"""What the chapters share: the style of the figures, a training loop, and rows of docs/results.md."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from torch import Tensor

from arlm import Autoregressor, Batch

# Importing Lightning takes seconds, and not every chapter has a data module.
if TYPE_CHECKING:
    from arlm.data.module import TokenDataModule

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

plt.style.use(HERE / "style.mplstyle")
torch.set_num_threads(1)
# Of tqdm, on pages without widgets.
warnings.filterwarnings("ignore", message="IProgress not found")


def batches(data: TokenDataModule, steps: int) -> Iterator[Batch]:
    """The first `steps` training batches of a data module, over as many epochs as needed."""
    order, dataset = data.order("train"), data.dataset("train")

    def endless() -> Iterator[Batch]:
        for epoch in count():
            order.set_epoch(epoch)
            yield from (dataset[rows] for rows in order)

    return islice(endless(), steps)


def whole_rows(tokens: Tensor) -> Batch:
    """Rows (B, T) of which every token is scored, as one unit each."""
    scored = torch.ones(tokens.shape, dtype=torch.bool)
    return Batch(tokens, scored, scored.float())


def train(
    net: Autoregressor, given: Iterable[Batch], steps: int, lr: float = 3e-3, clip: float = 1.0
) -> list[float]:
    """Minimise the nats of each scored token with AdamW; returns them for each step, in nats a token."""
    optimizer = torch.optim.AdamW(net.parameters(), lr, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    curve = []
    net.train()
    for batch in islice(given, steps):
        nats = -net.log_prob(batch.tokens, batch.context)
        loss = (nats * batch.scored).sum() / batch.scored.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        schedule.step()
        curve.append(loss.item())
    net.eval()
    return curve


def all_rows(vocab_size: int, length: int) -> Tensor:
    """Every row of `length` tokens, (V ** T, T)."""
    return torch.cartesian_prod(*[torch.arange(vocab_size)] * length)


def results(*names: str) -> Markdown:
    """The rows of docs/results.md whose first cell has one of the names, with the head of their table."""
    lines = (ROOT / "docs/results.md").read_text().splitlines()
    kept: list[str] = []
    for name in names:
        at = [
            i for i, line in enumerate(lines) if line.startswith("|") and name in line.split("|")[1]
        ]
        if not at:
            raise ValueError(f"docs/results.md has no row for {name!r}")
        for i in at[:1]:
            first = next(j for j in range(i, -1, -1) if not lines[j].startswith("|")) + 1
            kept += [line for line in lines[first : first + 2] if line not in kept]
            kept.append(lines[i])
    return Markdown("\n".join(kept))
