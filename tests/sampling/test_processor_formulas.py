"""Every logits processor against its formula, row by row, and in 100,000 draws by the sampler."""

from __future__ import annotations

import math

import pytest
import torch
from processor_cases import END, MARKS, PROCESSORS, SPEC, V, called, smooth
from processor_references import Row, probabilities, reference
from torch import Tensor, nn

from arlm.core import Autoregressor, Spec
from arlm.sampling import generate
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.processors.dry import Dry
from arlm.sampling.processors.xtc import Xtc

ROWS, DRAWS = 32, 100_000


def histories() -> list[tuple[list[int], int]]:
    """Rows of tokens and the lengths of their prompts; with repetitions, and words that are bad half-way."""
    random = torch.Generator().manual_seed(11)
    rows = [
        (torch.randint(4, (i % 13,), generator=random).tolist(), min(i % 13, 4)) for i in range(27)
    ]
    rows += [([0, 1, 2, 3, 0, 1, 2, 3, 0, 1], 2), ([3] * 12, 3), ([1, 0, 3, 3], 4), ([], 0)]
    return [*rows, ([0, 1, 0, 1, 3, 0, 1, 0, 1], 0)]


def history(rows: list[tuple[list[int], int]]) -> History:
    width = max(len(tokens) for tokens, _ in rows)
    tokens = torch.tensor([row + [7] * (width - len(row)) for row, _ in rows])
    lengths = torch.tensor([len(row) for row, _ in rows])
    prompts = torch.tensor([prompt for _, prompt in rows])
    return History(tokens, lengths, prompts, SPEC, torch.arange(len(rows)))


def softmax_or_nothing(x: list[float]) -> list[float]:
    return probabilities(x) if max(x) > -math.inf else [0.0] * len(x)


KNOWN = [processor for processor in PROCESSORS if type(processor) not in MARKS]


@pytest.mark.parametrize("processor", [*KNOWN, Dry(50, 3.0, allowed=2)], ids=str)
def test_the_distribution_is_that_of_the_formula(processor: LogitsProcessor) -> None:
    rows, given, formula = histories(), smooth(), reference(processor)
    before = history(rows)
    assert len(rows) == len(given)
    out = called(processor, given, before)
    uniform = before.uniform(1).tolist()
    for i, (tokens, prompt) in enumerate(rows):
        expected = formula(given[i].tolist(), Row(tokens, prompt, END, uniform[i]))
        assert softmax_or_nothing(out[i].tolist()) == pytest.approx(
            softmax_or_nothing(expected), rel=1e-9, abs=1e-300
        ), (tokens, prompt)


class Table(Autoregressor):
    """The same logits for every token of every row."""

    def __init__(self, spec: Spec, logits: Tensor) -> None:
        super().__init__(spec)
        self.embed = nn.Identity()
        self.register_buffer("logits", logits)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self.logits.expand(*tokens.shape, -1)


# One of each kind; of other arguments the distribution is tested above.
DRAWN = list({type(processor): processor for processor in KNOWN}.values())


@pytest.mark.parametrize("processor", DRAWN, ids=lambda p: type(p).__name__)
def test_draws_have_the_distribution_of_the_formula(processor: LogitsProcessor) -> None:
    """Pearson's chi-square, significance 1e-6; tokens of probability 0 are never drawn."""
    logits = torch.tensor([0.9, 0.2, 1.4, -0.3, 0.6, -1.0, 0.1, -2.5, 0.4]).double()
    prompt, formula = [0, 1, 2, 0, 1, 2, 3, 0, 1], reference(processor)
    forced = torch.tensor([*prompt, -1]).expand(DRAWS, -1)
    net = Table(Spec(V, (10,), eos_id=END), logits)
    drawn = generate(net, range(DRAWS), 10, processors=[processor], forced=forced).tokens[:, -1]

    def expected(uniform: float) -> Tensor:
        x = formula(logits.tolist(), Row(prompt, len(prompt), END, uniform))
        return torch.tensor(probabilities(x)).double()

    p = expected(0.0)
    if isinstance(processor, Xtc):  # it applies at a share of the positions
        p = processor.probability * p + (1 - processor.probability) * expected(1.0)
    seen = drawn.bincount(minlength=V).double()
    assert (seen[p == 0] == 0).all()
    possible = p > 0
    statistic = ((seen - DRAWS * p) ** 2 / (DRAWS * p))[possible].sum()
    half = (int(possible.sum()) - 1) / 2
    if half:
        tail = torch.special.gammaincc(torch.tensor(half).double(), statistic / 2)
        assert tail > 1e-6, (seen, DRAWS * p)


def test_a_long_repetition_has_the_largest_penalty_and_no_more() -> None:
    tokens = torch.zeros(1, 3000).long()
    full = History(tokens, torch.tensor([3000]), torch.tensor([0]), SPEC)
    for base in (1.0, 1.0001, 1.75, 100.0):
        out = Dry(0.8, base)(torch.zeros(1, V).double(), full)
        assert out[0, 1:].tolist() == [0.0] * (V - 1)
        assert -out[0, 0].item() == pytest.approx(min(1e4, 0.8 * base**2997 if base < 1.1 else 1e4))
