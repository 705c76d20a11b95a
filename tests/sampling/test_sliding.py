"""Rows longer than the window: equal to a loop that reads the kept tokens again at each slide."""

from __future__ import annotations

from typing import Any

import laws
import pytest
import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec, token_log_prob
from arlm.data.dataset import generator
from arlm.errors import UserError
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.sampling import beam_search, fixed_point, generate, row_seeds, uniform_noise
from arlm.sampling.noise import draw
from arlm.sampling.processors import History, MemoryProcessor, apply, parse_processors
from arlm.sampling.sliding import SlidingSteps, begin_steps, kept
from arlm.sampling.steps import Steps, without_padding

WINDOW, LENGTH, ROWS = 8, 30, 6
PROCESSORS = "frequency_penalty=0.5:prompt=true,temperature=0.9,mirostat=2"


def network(window: int = WINDOW, **options: Any) -> Autoregressor:
    torch.manual_seed(0)
    ends, label = options.pop("ends", False), options.pop("label", False)
    context = Spec(3, (1,), kind="label") if label else None
    end = {"pad_id": 11, "eos_id": 12} if ends else {}
    spec = Spec(13, (window,), context=context, **end)
    return laws.lively(TransformerLanguageModel(spec, width=8, depth=2, heads=2, **options))


def prompts() -> Tensor:
    """Of 0, 3, 8, 9, 20 and 29 tokens: within the window, as long as it, and longer; an end token ends none."""
    tokens = torch.randint(10, (ROWS, LENGTH), generator=generator(1))
    tokens[:, WINDOW - 1] = 12
    lengths = torch.tensor([0, 3, WINDOW, WINDOW + 1, 20, LENGTH - 1])
    return tokens.where(torch.arange(LENGTH) < lengths[:, None], -1)


def reference(
    net: Autoregressor,
    forced: Tensor,
    noise: Tensor,
    processors: str = "",
    label: int | None = None,
) -> tuple[Tensor, Tensor]:
    """One row (T,), read anew for each token, and its log-probabilities."""
    window, dropped = net.spec.length, net.spec.length - kept(net.spec.length)
    context = None if label is None else torch.tensor([[label]])
    chain = parse_processors(processors)
    memories = [p.init(1, forced.device) if isinstance(p, MemoryProcessor) else None for p in chain]
    prompt = int((forced >= 0).long().cumprod(0).sum())
    tokens, log_prob = torch.zeros(1, len(forced), dtype=torch.long), torch.zeros(len(forced))
    for t in range(len(forced)):
        first = 0 if t < window else ((t - window) // dropped + 1) * dropped
        with torch.inference_mode():
            logits = net(tokens[:, first : t + 1], context)[:, -1]
        shaped, outputs = without_padding(logits, net.spec), []
        history = History(tokens, torch.tensor([t]), torch.tensor([prompt]), net.spec)
        for p, memory in zip(chain, memories, strict=True):
            shaped = apply(p, shaped, history, memory)
            outputs.append(shaped)
        token = forced[t : t + 1] if t < prompt else draw(shaped, noise[t : t + 1])
        for i, p in enumerate(chain):
            if isinstance(p, MemoryProcessor) and t >= prompt:
                memories[i] = p.observe(token, outputs[i], memories[i])
        tokens[:, t] = token
        log_prob[t] = token_log_prob(logits, token)
        if t >= prompt and token == net.spec.eos_id:
            tokens[:, t + 1 :] = 0 if net.spec.pad_id is None else net.spec.pad_id
            break
    return tokens[0], log_prob.double()


@pytest.mark.parametrize(
    ("options", "processors"),
    [
        ({}, ""),
        ({}, PROCESSORS),
        ({"positions": "learned", "label": True}, ""),
        ({"ends": True}, "temperature=1.5"),
        ({"sliding_window": 3, "window": 7}, PROCESSORS),
        ({"window": 1}, ""),
        ({"window": 2}, PROCESSORS),
    ],
    ids=str,
)
def test_rows_equal_a_loop_that_reads_the_window_again(options: dict, processors: str) -> None:
    net, forced, seeds = network(**options), prompts(), row_seeds(0, ROWS)
    noise = uniform_noise(seeds, LENGTH)
    labels = list(range(3)) * 2 if options.get("label") else [None] * ROWS
    context = torch.tensor(labels)[:, None] if options.get("label") else None
    chain = parse_processors(processors)
    drawn = generate(net, seeds, processors=chain, forced=forced, context=context)
    ended = []
    for row, label in enumerate(labels):
        tokens, log_prob = reference(net, forced[row], noise[row], processors, label)
        assert drawn.tokens[row].tolist() == tokens.tolist()
        torch.testing.assert_close(drawn.log_prob[row], log_prob, atol=1e-6, rtol=0)
        ended.append(bool((log_prob == 0).any()))
    assert any(ended) == bool(options.get("ends"))
    assert not all(ended)


def test_half_of_the_window_is_kept() -> None:
    assert [kept(window) for window in (1, 2, 7, 8)] == [0, 1, 3, 4]


def test_rows_within_the_window_do_not_slide() -> None:
    net, seeds = network(), row_seeds(3, 2)
    short, long = generate(net, seeds, WINDOW), generate(net, seeds, LENGTH)
    assert torch.equal(short.tokens, long.tokens[:, :WINDOW])
    torch.testing.assert_close(short.log_prob, long.log_prob[:, :WINDOW])
    free = torch.full((2, WINDOW), -1)
    assert type(begin_steps(net, free, seeds)) is Steps


@pytest.mark.parametrize("block", [1, 3, 64])
def test_blocks_and_limits_of_each_row(block: int) -> None:
    net, forced, seeds = network(), prompts(), row_seeds(0, ROWS)
    whole = generate(net, seeds, forced=forced)
    limits = torch.tensor([1, 8, 9, 17, 22, 30])
    steps = begin_steps(net, forced, seeds, limits=limits, block=block)
    assert isinstance(steps, SlidingSteps)
    seen = forced.clone()
    for part in steps:
        for row, position, tokens, length in zip(
            part.rows, part.positions, part.tokens, part.lengths, strict=True
        ):
            seen[row, position : position + length] = tokens[:length]
    assert steps.state.lengths.tolist() == limits.tolist()
    for row, limit in enumerate(limits.tolist()):
        assert torch.equal(steps.state.tokens[row, :limit], whole.tokens[row, :limit])
        assert torch.equal(seen[row, :limit], whole.tokens[row, :limit])


def test_rows_are_selected_and_replaced_between_slides() -> None:
    net, seeds = network(), row_seeds(0, 4)
    whole = generate(net, seeds, LENGTH).tokens
    free = torch.full((4, LENGTH), -1)
    steps = begin_steps(net, free[:2], seeds[:2])
    for _ in range(13):
        next(steps)
    steps.state = steps.state.assign(torch.tensor([0]), begin_steps(net, free[3:], seeds[3:]).state)
    for _ in steps:
        pass
    assert torch.equal(steps.state.tokens, whole[[3, 1]])


def test_a_row_that_is_ended_between_two_slides_is_left() -> None:
    net, seeds = network(), row_seeds(0, 2)
    steps = begin_steps(net, torch.full((2, LENGTH), -1), seeds, block=WINDOW)
    next(steps)
    steps.state = steps.state.end(torch.tensor([True, False]))
    for _ in steps:
        pass
    assert steps.state.lengths.tolist() == [WINDOW, LENGTH]


def test_networks_without_a_window_go_on() -> None:
    spec = Spec(13, (WINDOW,))
    nets = [
        LSTMLanguageModel(spec, width=8),
        TransformerLanguageModel(spec, width=8, depth=1, heads=2, positions="alibi"),
    ]
    for net in map(laws.lively, nets):
        drawn = generate(net, row_seeds(0, 2), LENGTH)
        torch.testing.assert_close(net.log_prob(drawn.tokens).double(), drawn.log_prob)


def test_what_cannot_slide_is_refused() -> None:
    image = PixelCNN(Spec(2, (2, 2, 1)), width=4, depth=1, head_width=4)
    with pytest.raises(UserError, match="5 tokens do not fit an image of the network"):
        generate(image, [0], 5)
    pairs = Spec(9, (4,), eos_id=8, context=Spec(9, (4,), pad_id=8))
    translator = TransformerSeq2Seq(pairs, width=8, depth=1, heads=2)
    with pytest.raises(UserError, match="5 tokens do not fit a translation of the network"):
        generate(translator, [0], 5, context=torch.zeros(1, 2, dtype=torch.long))
    for search in (lambda: beam_search(network(), 1, 9), lambda: fixed_point(network(), [0], 9)):
        with pytest.raises(UserError, match="9 tokens do not fit the network, which holds 8"):
            search()
