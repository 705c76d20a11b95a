"""What comes out beside tokens: both log-probabilities, alternatives, stop tokens, reasons; nothing unless asked for."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import laws
import pytest
import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec, log_softmax
from arlm.errors import UserError
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import Details, Steps, begin, finish_reasons, generate, prepare
from arlm.sampling.processors import History, parse_processors
from arlm.sampling.steps import without_padding

V, WINDOW, PAD, END = 9, 24, 7, 8
PROCESSORS = parse_processors("frequency_penalty=0.5,temperature=0.8,top_k=4")


def networks(spec: Spec = Spec(V, (WINDOW,), pad_id=PAD, eos_id=END)) -> list[Autoregressor]:  # noqa: B008
    torch.manual_seed(0)
    nets = [
        TransformerLanguageModel(spec, width=16, depth=1, heads=2),
        LSTMLanguageModel(spec, width=16, depth=1),
    ]
    return [laws.lively(net) for net in nets]


def prompts(length: int) -> Tensor:
    forced = torch.full((4, length), -1)
    forced[0, :5], forced[1, :1], forced[3, :11] = 3, 4, 5
    return forced


def expected(net: Autoregressor, row: Tensor, size: int, position: int) -> tuple[Tensor, Tensor]:
    """Both log-probabilities (V,) of a position, recomputed from the row's prefix."""
    logits = net(row[None, : position + 1])[:, position].detach()
    history = History(row[None], torch.tensor([position]), torch.tensor([size]), net.spec)
    after = without_padding(logits, net.spec)
    for processor in PROCESSORS:
        after = processor(after, history)
    return log_softmax(logits)[0], log_softmax(after)[0]


@pytest.mark.parametrize("number", range(2))
def test_details_are_those_of_both_distributions(number: int) -> None:
    net, forced = networks()[number], prompts(WINDOW)
    found = generate(net, range(4), forced=forced, processors=PROCESSORS, processed=True, top=V)
    plain = generate(net, range(4), forced=forced, processors=PROCESSORS)
    assert torch.equal(found.tokens, plain.tokens)
    assert plain.processed_log_prob is None
    assert plain.top is None
    assert found.processed_log_prob is not None
    assert found.top is not None
    checked = 0
    for row, tokens in enumerate(found.tokens):
        size, length = int((forced[row] >= 0).sum()), int(found.lengths[row])
        assert (found.processed_log_prob[row, :size] == 0).all()
        assert (found.processed_log_prob[row, length:] == 0).all()
        assert (found.top.log_prob[row, length:] == 0).all()
        for at in range(size, length):
            before, after = expected(net, tokens, size, at)
            own = found.processed_log_prob[row, at]
            assert abs(own - after[tokens[at]]) < 1e-10
            assert abs(found.log_prob[row, at] - before[tokens[at]]) < 1e-10
            ids, first, second = (part[row, at] for part in found.top)
            assert ids.sort().values.tolist() == list(range(V))
            assert (first.diff() <= 0).all(), "in order of the network"
            assert (first - before[ids]).abs().max() < 1e-10
            assert torch.allclose(second.exp(), after[ids].exp(), atol=1e-10)
            assert abs(second.exp().sum() - 1) < 1e-10
            checked += 1
    assert checked > 8


def test_fewer_alternatives_are_the_first_ones() -> None:
    net = networks()[0]
    few, all_of_them = (generate(net, range(4), top=count).top for count in (3, V))
    assert few is not None
    assert all_of_them is not None
    for part, whole in zip(few, all_of_them, strict=True):
        assert torch.equal(part, whole[..., :3])


@pytest.mark.parametrize("block", [1, 7])
def test_blocks_and_sliding_windows_have_the_details_of_whole_rows(block: int) -> None:
    net = networks(Spec(V, (WINDOW,)))[0]
    found = generate(net, range(4), 60, processors=PROCESSORS, processed=True, top=2)
    with patch("arlm.sampling.generate.SCORED_TOGETHER", block):
        again = generate(net, range(4), 60, processors=PROCESSORS, processed=True, top=2)
    assert found.processed_log_prob is not None
    assert again.processed_log_prob is not None
    assert torch.equal(found.tokens, again.tokens)
    assert (found.processed_log_prob < 0).float().mean() > 0.8  # where more than one was kept
    assert (found.processed_log_prob - again.processed_log_prob).abs().max() < 1e-10
    assert found.top is not None
    assert again.top is not None
    assert torch.equal(found.top.tokens, again.top.tokens)


def test_without_processors_both_differ_by_the_padding() -> None:
    net = networks()[1]
    found = generate(net, range(4), processed=True)
    assert found.processed_log_prob is not None
    for row, length in enumerate(found.lengths.tolist()):
        before = log_softmax(net(found.tokens[row : row + 1]))[0, :length].detach()
        shift = found.processed_log_prob[row, :length] - found.log_prob[row, :length]
        assert (shift + torch.log1p(-before[:, PAD].exp())).abs().max() < 1e-10


def test_nothing_is_computed_unless_asked_for() -> None:
    net = networks()[0]
    with patch("arlm.sampling.details.log_softmax", side_effect=AssertionError):
        found = generate(net, range(4), processors=PROCESSORS)
    assert found.processed_log_prob is None
    watched = patch("arlm.sampling.details.log_softmax", side_effect=AssertionError)
    with watched, pytest.raises(AssertionError):
        generate(net, range(4), top=1)


def test_images_have_details_and_the_same_pixels() -> None:
    net = laws.lively(PixelCNN(Spec(3, (3, 3, 1)), width=8, depth=1, head_width=8))
    plain = generate(net, range(3))
    with patch.object(net, "sample_rows", side_effect=AssertionError):
        found = generate(net, range(3), processed=True, top=1)
    assert torch.equal(plain.tokens, found.tokens)
    assert found.processed_log_prob is not None
    assert (found.processed_log_prob - plain.log_prob).abs().max() < 1e-10
    assert plain.finish == found.finish == ("length",) * 3


@pytest.mark.parametrize("top", [-1, V + 1])
def test_a_number_of_alternatives_that_there_are_not_is_refused(top: int) -> None:
    with pytest.raises(UserError, match=f"top: {top} is out of range; choose 0 to {V}"):
        generate(networks()[0], [0], top=top)


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("length", [WINDOW, 60])
def test_a_stop_token_ends_a_row_where_it_is_first_drawn(number: int, length: int) -> None:
    net = networks(Spec(V, (WINDOW,)))[number]
    forced, stops = prompts(length), [3, 5]
    forced[2] = torch.randint(V, (length,), generator=torch.Generator().manual_seed(1))
    forced[2, length - 4 :] = -1  # a stop token in a prompt does not count
    plain = generate(net, range(4), length, forced=forced, processors=PROCESSORS)
    found = generate(net, range(4), length, forced=forced, processors=PROCESSORS, stop_tokens=stops)
    for row in range(4):
        size = int((forced[row] >= 0).long().cumprod(0).sum())
        drawn = plain.tokens[row].tolist()
        at = [place for place in range(size, length) if drawn[place] in stops]
        stop = at[0] + 1 if at else length
        assert found.lengths[row] == stop
        assert found.finish[row] == ("stop" if at else "length")
        assert found.tokens[row].tolist() == drawn[:stop] + [0] * (length - stop)
        assert (found.log_prob[row, stop:] == 0).all()
    assert "stop" in found.finish


def test_a_stop_token_at_the_last_place_of_a_window_does_not_slide_it() -> None:
    net = networks(Spec(V, (WINDOW,)))[0]
    plain = generate(net, [5], 60).tokens[0].tolist()
    last = plain[WINDOW - 1]
    forced = torch.tensor([[*plain[: WINDOW - 1]]])
    found = generate(net, [5], 60, forced=forced, stop_tokens=[last])
    assert (int(found.lengths), found.finish) == (WINDOW, ("stop",))


def test_rows_have_stop_tokens_of_their_own() -> None:
    net = networks(Spec(V, (WINDOW,)))[1]
    free, seeds = prepare(net, range(2), WINDOW, None)
    stops = torch.tensor([[2, -1], [-1, -1]])
    steps = Steps(net, begin(net, free, seeds, stop_tokens=stops), block=5)
    assert finish_reasons(steps.state, net.spec) == [None, None]
    list(steps)
    assert finish_reasons(steps.state, net.spec) == ["stop", "length"]
    assert steps.state.tokens[0, int(steps.state.lengths[0]) - 1] == 2


def test_reasons() -> None:
    net = networks()[1]
    given: dict[str, Any] = {"lengths": [3] * 3 + [WINDOW] * 13, "stop_tokens": [1]}
    found = generate(net, range(16), **given)
    for row, reason in enumerate(found.finish):
        last = int(found.tokens[row, found.lengths[row] - 1])
        assert reason == {END: "end", 1: "stop"}.get(last, "length")
        assert reason != "length" or found.lengths[row] == given["lengths"][row]
    assert {"end", "stop", "length"} == set(found.finish)
    # The end token is an end, even among the stop tokens; a prompt that ends with it goes on.
    found = generate(net, range(9), WINDOW, stop_tokens=[END], forced=torch.full((9, 1), END))
    assert "end" in found.finish
    assert "stop" not in found.finish
    full = generate(net, [0], 2, forced=torch.tensor([[1, END]]), stop_tokens=[1])
    assert full.finish == ("length",)
    assert (found.lengths > 1).all()


def test_log_probabilities_of_a_block_are_0_beyond_its_rows() -> None:
    net = networks()[1]
    state = begin(net, *prepare(net, range(16), WINDOW, None))
    seen = False
    for block in Steps(net, state, block=6, details=Details(processed=True)):
        beyond = torch.arange(block.tokens.shape[1]) >= block.lengths[:, None]
        assert block.processed_log_prob is not None
        assert (block.processed_log_prob[beyond] == 0).all()
        assert (block.processed_log_prob[~beyond] < 0).all()
        seen |= bool(beyond.any())
    assert seen


def test_results_unpack_and_details_are_a_value() -> None:
    tokens, log_prob = generate(networks()[0], [1])
    assert tokens.shape == log_prob.shape
    assert Details() == Details(False, 0)
    assert not Details()
    assert Details(top=1)
