"""The native backend agrees with the torch backend: equal tokens and log-probabilities for any batch."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

import laws
import numpy as np
import processor_cases
import pytest
import torch
from torch import Tensor

from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.pixelcnn import PixelCNN
from arlm.pixels.base import PixelNetwork, PixelState
from arlm.programs import native_backend
from arlm.programs.native_backend import NativeBackend
from arlm.programs.torch_backend import TorchBackend
from arlm.sampling import fixed_point, generate
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.min_p import MinP
from arlm.sampling.processors.temperature import Temperature
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_p import TopP

pytest.importorskip("numba", reason="machine code needs numba (pip install arlm[native])")

from arlm.states import State, concatenate


@pytest.fixture(autouse=True)
def machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose machine code, however small the work."""
    monkeypatch.setenv("ARLM_NATIVE", "1")


CASES = [case for case in laws.cases() if issubclass(case.kind, PixelNetwork)]
SPECS = laws.SPECS | {"grey": Spec(4, (5, 6, 1)), "rgb": Spec(4, (4, 6, 3))}
SPECS |= {f"{k}+label": Spec(4, SPECS[k].shape, context=laws.LABEL) for k in ("grey", "rgb")}


@pytest.mark.parametrize("batch", [1, 2, 5, 19])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_torch(case: laws.Case, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net = case.build(SPECS).float()
    context, drawn = laws.contexts(net, batch), {}
    for native in ("1", "0"):
        monkeypatch.setenv("ARLM_NATIVE", native)
        drawn[native] = generate(net, range(batch), context=context)
    assert torch.equal(drawn["1"].tokens, drawn["0"].tokens)
    assert len(drawn["1"].tokens.unique()) > 1
    assert (drawn["1"].log_prob - drawn["0"].log_prob).abs().max() < 1e-4
    scored = net.log_prob(drawn["1"].tokens, context)
    assert (drawn["1"].log_prob - scored).abs().max() < 1e-4


@pytest.mark.parametrize("case", CASES, ids=str)
def test_step_by_step_and_reordered(case: laws.Case) -> None:
    """Logits processors and beam search advance step by step."""
    net = case.build(SPECS).float()
    tokens, context = laws.rows(net, 6), laws.contexts(net, 6)
    with torch.no_grad():
        parallel = net(tokens, context)
        logits, state = net.start(6, net.spec.length, context)
        assert isinstance(state, PixelState)
        assert isinstance(state.backend, NativeBackend)
        chunk, state = net.advance(tokens[:, :-1], state)
        together = torch.cat([logits[:, None], chunk], dim=1)
        assert (together.softmax(-1) - parallel.softmax(-1)).abs().max() < 1e-4
        for order in (torch.tensor([4, 0, 0]), torch.tensor([5])):
            _, state = net.start(6, net.spec.length, context)
            half = net.spec.length // 2
            _, state = net.advance(tokens[:, :half], state)
            logits, _ = net.advance(tokens[order][:, half : half + 1], state[order])
            there = parallel[order][:, half + 1]
            assert (logits[:, 0].softmax(-1) - there.softmax(-1)).abs().max() < 1e-4


@pytest.mark.parametrize("rows", [2, 6])  # one after the other, and side by side
def test_states_are_joined_replaced_and_mapped(rows: int) -> None:
    net = CASES[0].kind(laws.SPECS["grey"], **CASES[0].arguments).eval()
    tokens = laws.rows(net, 2 * rows)
    expected = net(tokens)[:, 5]

    def at(chosen: torch.Tensor) -> State:
        _, state = net.start(len(chosen), net.spec.length)
        return net.advance(tokens[chosen][:, :4], state)[1]

    first, second = torch.arange(rows), torch.arange(rows, 2 * rows)
    for state, chosen in (
        (concatenate([at(first), at(second)]), torch.cat([first, second])),
        (
            at(first).assign(torch.tensor([1]), at(second[-1:])),
            torch.cat([first[:1], second[-1:], first[2:]]),
        ),
        (at(second).map(torch.clone), second),
        (at(second)[torch.tensor([1, 0])], second[[1, 0]]),
    ):
        logits, _ = net.advance(tokens[chosen][:, 4:5], state)
        assert (logits[:, 0] - expected[chosen]).abs().max() < 1e-5


def test_threads_share_out_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    net = laws.lively(PixelCNN(Spec(2, (6, 6, 1)), width=4, depth=2, head_width=4)).float()
    alone = [generate(net, range(n)).tokens for n in (2, 40)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for tokens in alone:
        assert torch.equal(generate(net, range(len(tokens))).tokens, tokens)


class Same(LogitsProcessor):
    """Changes nothing, and machine code does not know it."""

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        return logits


def test_forced_pixels_stay_and_other_processors_advance_step_by_step() -> None:
    net = laws.lively(PixelCNN(Spec(4, (6, 6, 1)), width=4, depth=2, head_width=4)).float()
    forced = torch.full((5, 36), -1)
    forced[:, 10:20] = torch.arange(10) % 4
    counted: list[int] = []
    drawn = generate(net, range(5), forced=forced, progress=counted.append)
    assert sum(counted) == 36
    assert torch.equal(drawn.tokens[:, 10:20], forced[:, 10:20])
    assert torch.equal(fixed_point(net, range(5), forced=forced).tokens, drawn.tokens)
    for processors in ([Same()], [Temperature(1.0)], [Same(), Temperature(1.0)]):
        same = generate(net, range(5), forced=forced, processors=processors)
        assert torch.equal(same.tokens, drawn.tokens)


RULES = [each for each in processor_cases.PROCESSORS if each.rule() is not None]


@pytest.mark.parametrize("processor", RULES, ids=str)
@pytest.mark.parametrize("size", [1, 2, 9, 256])
def test_rules_are_those_of_the_processors(processor: LogitsProcessor, size: int) -> None:
    noise = torch.Generator().manual_seed(size)
    logits = 3 * torch.randn(60, size, generator=noise)
    logits[20:] = logits[20:].round()  # equal logits
    logits[40:, 1::3] = -torch.inf
    history = History(*torch.zeros(3, 60, 1, dtype=torch.long), Spec(size, (1,)))
    name, number = processor.rule() or ("", 0.0)
    rules = np.array([(native_backend.RULES.index(name), number)])
    shaped, heap = logits.clone(), np.empty(size, np.int64)
    apply_rules = native_backend.compiled().apply_rules
    for row in shaped.numpy():
        apply_rules(row, rules, heap)
    expected = processor(logits, history)
    assert torch.equal(shaped.isinf(), expected.isinf())
    assert (shaped - expected).nan_to_num(0).abs().max() < 1e-5


CHAINS: list[list[LogitsProcessor]] = [
    [Temperature(0.7), TopP(0.8)],
    [TopP(0.8), Temperature(1.5)],  # another distribution
    [TopK(3), MinP(0.3)],
    [Temperature(2.0), Greedy()],
]


@pytest.mark.parametrize("images", [2, 19])  # one after the other, and side by side
@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_chains_of_rules_are_drawn_by_machine_code(
    chain: list[LogitsProcessor], images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = laws.lively(PixelCNN(Spec(8, (6, 6, 1)), width=4, depth=2, head_width=4)).float()
    with patch.object(net, "advance", side_effect=AssertionError):
        drawn = generate(net, range(images), processors=chain)
    monkeypatch.setenv("ARLM_NATIVE", "0")
    stepwise = generate(net, range(images), processors=chain)
    assert torch.equal(drawn.tokens, stepwise.tokens)
    assert (drawn.log_prob - stepwise.log_prob).abs().max() < 1e-4
    assert not torch.equal(generate(net, range(images)).tokens, drawn.tokens)


@dataclass(frozen=True)
class NeverZero(Temperature):
    """A processor of one's own, which does not do what the rule that it inherits says."""

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        return super().__call__(logits, history).index_fill(1, torch.tensor([0]), -torch.inf)


def test_a_rule_is_not_inherited_by_what_does_something_else() -> None:
    net = laws.lively(PixelCNN(Spec(4, (4, 4, 1)), width=4, depth=1, head_width=4)).float()
    drawn = generate(net, range(8), processors=[NeverZero(1.0)])
    assert (drawn.tokens > 0).all()
    assert (generate(net, range(8), processors=[Temperature(1.0)]).tokens == 0).any()


def test_a_large_k_keeps_all() -> None:
    net = laws.lively(PixelCNN(Spec(4, (4, 4, 1)), width=4, depth=1, head_width=4)).float()
    plain = generate(net, range(8))
    assert torch.equal(generate(net, range(8), processors=[TopK(10**20)]).tokens, plain.tokens)


@pytest.mark.parametrize("processors", [(), (TopP(0.9),), (TopK(2),)], ids=str)
def test_logits_that_are_nan_are_refused(processors: tuple[LogitsProcessor, ...]) -> None:
    net = laws.lively(PixelCNN(Spec(4, (4, 4, 1)), width=4, depth=1, head_width=4)).float()
    next(net.parameters()).data.fill_(torch.nan)
    with pytest.raises(
        UserError, match="network: its logits at position 0 of row 0 are nan or inf, or"
    ):
        generate(net, range(2), processors=processors)
    whole = torch.zeros(2, 16, dtype=torch.long)  # nothing is drawn
    assert torch.equal(generate(net, range(2), forced=whole).tokens, whole)


def test_the_torch_backend_runs_where_native_code_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = PixelCNN(Spec(2, (4, 4, 1)), width=4, depth=1, head_width=4)
    monkeypatch.setenv("ARLM_NATIVE", "0")
    assert isinstance(net.start(2, 16)[1].backend, TorchBackend)
    monkeypatch.setenv("ARLM_NATIVE", "1")
    assert isinstance(net.double().start(2, 16)[1].backend, TorchBackend)


def test_fast_exp_and_functions_built_on_it() -> None:
    from arlm.programs import native_code

    xs = [-1e9, -88.0, -20.0, -1e-3, 0.0, 1e-6, 0.3, 5.0, 87.0]
    for x in xs:
        value = torch.tensor(x, dtype=torch.float32)
        for name, true in (
            ("sigmoid", value.double().sigmoid()),
            ("tanh", value.double().tanh()),
            ("elu", torch.nn.functional.elu(value.double())),
        ):
            got = getattr(native_code, name)(value.numpy()[()])
            assert abs(got - float(true)) < 1e-6 * max(1.0, abs(float(true))), (name, x)
