"""Sampling as an iterator: rows at positions of their own, which enter and leave; nothing changes between blocks."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import laws
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from arlm.core import Autoregressor, Spec
from arlm.data.dataset import generator
from arlm.errors import UserError
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.sampling import generate, row_seeds
from arlm.sampling.generate import prepare
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.steps import Steps, begin
from arlm.states import concatenate

LENGTH = 200


def networks() -> list[Autoregressor]:
    torch.manual_seed(0)
    spec, ending = Spec(17, (LENGTH,)), Spec(17, (LENGTH,), pad_id=15, eos_id=16)
    pairs = Spec(17, (LENGTH,), eos_id=16, context=Spec(9, (7,), pad_id=8))
    nets = [
        TransformerLanguageModel(spec, width=16, depth=2, heads=2),
        TransformerLanguageModel(ending, width=16, depth=1, heads=2, positions="alibi"),
        LSTMLanguageModel(ending, width=16, depth=2),
        TransformerSeq2Seq(pairs, width=16, depth=1, heads=2),
    ]
    return [laws.lively(net) for net in nets]


def requests(net: Autoregressor, count: int = 16) -> tuple[Tensor, Tensor, Tensor | None]:
    """Prompts of 1 to 100 tokens, budgets of 1 to 100 more, sources."""
    random = generator(3)
    prompts = 1 + torch.randint(100, (count,), generator=random)
    budgets = 1 + torch.randint(100, (count,), generator=random)
    prompts[0], prompts[1], budgets[2], budgets[3] = 1, 100, 1, 100
    tokens = torch.randint(15, (count, LENGTH), generator=random)
    forced = tokens.where(torch.arange(LENGTH) < prompts[:, None], -1)
    return forced, prompts + budgets, laws.contexts(net, count)


@pytest.mark.parametrize("number", range(4))
def test_rows_of_ragged_prompts_and_budgets_equal_each_row_alone(number: int) -> None:
    net = networks()[number]
    forced, limits, context = requests(net)
    together = generate(
        net, range(16), LENGTH, forced=forced, context=context, lengths=limits.tolist()
    )
    for i in range(16):
        sources = None if context is None else context[i : i + 1]
        alone = generate(
            *(net, [i], LENGTH),
            forced=forced[i : i + 1],
            context=sources,
            lengths=[int(limits[i])],
        )
        assert torch.equal(alone.tokens[0], together.tokens[i]), f"row {i}"
        assert (alone.log_prob[0] - together.log_prob[i]).abs().max() < 1e-10, f"row {i}"


@pytest.mark.parametrize("number", range(4))
def test_rows_enter_and_leave_a_running_batch(number: int) -> None:
    """16 requests through 5 slots; each row equals the row alone."""
    net = networks()[number]
    forced, limits, context = requests(net)
    seeds = torch.arange(16)

    def begun(rows: list[int]) -> Any:
        sources = None if context is None else context[rows]
        numbers = torch.tensor(rows)
        return begin(net, forced[rows], seeds[rows], (), sources, limits[rows], numbers)

    steps, waiting, found = Steps(net, begun(list(range(5))), block=8), list(range(5, 16)), {}
    for _ in range(1000):
        block = next(steps, None)
        ended = steps.state.ended.nonzero().flatten().tolist()
        for slot in ended:
            found[int(steps.state.rows[slot])] = steps.state.tokens[slot].clone()
        free = ended[: len(waiting)]
        if free:
            rows, waiting = waiting[: len(free)], waiting[len(free) :]
            steps.state = steps.state.assign(torch.tensor(free), begun(rows))
        elif block is None:
            break
    expected = generate(
        net, range(16), LENGTH, forced=forced, context=context, lengths=limits.tolist()
    )
    assert sorted(found) == list(range(16))
    for row, tokens in found.items():
        assert torch.equal(tokens, expected.tokens[row]), f"row {row}"


class Allocated(TorchDispatchMode):
    """Adds the bytes of new tensors, of 100 bytes and more."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        before = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in before:
            self.total += result.numel() * result.element_size()
        return result


def test_a_replaced_row_moves_no_whole_cache() -> None:
    net = networks()[0]
    forced, limits, _ = requests(net)
    seeds = torch.arange(16)
    state = begin(net, forced, seeds, limits=limits)
    new = begin(net, forced[:1], seeds[:1], limits=limits[:1])
    places = [part.data_ptr() for part in state.network.leaves() if part.ndim == 4]
    size = sum(part.numel() * part.element_size() for part in state.network.leaves())
    with Allocated() as allocated:
        state = state.assign(torch.tensor([3]), new)
    assert [part.data_ptr() for part in state.network.leaves() if part.ndim == 4] == places
    assert allocated.total < size / 100  # nothing but a few row numbers
    assert size > 10**6


@torch.no_grad()
def test_states_are_freed_at_once() -> None:
    """A reference cycle would keep old caches until the next garbage collection."""
    for net in networks():
        _, state = net.start(4, 50, laws.contexts(net, 4))
        gc.disable()
        try:
            old = [weakref.ref(part) for part in state.leaves()]
            state = state[torch.tensor([1, 0, 2])]
            state = concatenate([state, state[:]])
            state = state.assign(torch.tensor([0]), state[1:2])
            if net.spec.context is None:
                assert not any(part() is not None for part in old)
            else:  # sources are kept
                assert any(part() is None for part in old)
        finally:
            gc.enable()


def begun(net: Autoregressor, seeds: Any, length: int, forced: Tensor | None = None) -> Any:
    return begin(net, *prepare(net, seeds, length, forced))


def test_blocks_hold_what_generate_returns() -> None:
    net = networks()[2]
    seeds, (forced, *_) = row_seeds(0, 4), requests(networks()[2], 4)
    expected = generate(net, seeds, LENGTH, forced=forced)
    for size in (1, 7):
        steps = Steps(net, begun(net, seeds, LENGTH, forced), block=size)
        tokens, log_prob = steps.state.tokens.clone(), steps.state.log_prob.clone()
        for block in steps:
            assert block.tokens.shape[1] <= size
            for row, first, count in zip(
                *(x.tolist() for x in (block.rows, block.positions, block.lengths)), strict=True
            ):
                tokens[row, first : first + count] = block.tokens[row, :count]
                log_prob[row, first : first + count] = block.log_prob[row, :count]
                assert (block.log_prob[row, count:] == 0).all()
        assert torch.equal(tokens, expected.tokens)
        assert (log_prob - expected.log_prob).abs().max() < 1e-10


def process() -> tuple:
    """What a sampler could leave behind in the process."""
    return (
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_rng_state().tolist(),
    )


def modes(net: torch.nn.Module) -> list[bool]:
    return [module.training for module in net.modules()]


def test_interleaved_and_abandoned_samplers_leave_process_and_networks_as_they_were() -> None:
    lstm, gpt = networks()[2].train(), networks()[0].train()
    gpt.blocks[0].eval()  # a part in its own mode, such as a frozen one
    before = process(), modes(lstm), modes(gpt)
    first, second = Steps(lstm, begun(lstm, [1, 2], 40)), Steps(gpt, begun(gpt, [3], 40), block=4)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            next(first)
            next(second)
            assert torch.is_autocast_enabled("cpu")
            assert not torch.is_inference_mode_enabled()
    assert (process(), modes(lstm), modes(gpt)) == before
    del first
    rest = [block.tokens for block in second]
    assert torch.equal(
        torch.cat([second.state.tokens[:, :12], *rest], dim=1), generate(gpt, [3], 40).tokens
    )
    assert (process(), modes(lstm), modes(gpt)) == before
    lstm.log_prob(torch.ones(1, 5).long()).sum().backward()  # outside of inference mode


def test_islice_takes_the_first_blocks() -> None:
    net = networks()[0]
    blocks = list(itertools.islice(Steps(net, begun(net, [5], LENGTH)), 7))
    expected = generate(net, [5], LENGTH).tokens[0, :7]
    assert torch.cat([block.tokens[0] for block in blocks]).tolist() == expected.tolist()
    assert not blocks[0].tokens.is_inference()


def test_a_network_that_fails_leaves_the_process_as_it_was() -> None:
    net = networks()[0].train()
    steps, before = Steps(net, begun(net, [1], 30)), (process(), modes(net))
    net.head.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        next(steps)
    assert (process(), modes(net)) == before


def test_images_keep_one_position_and_refuse_limits_that_differ() -> None:
    net = laws.lively(PixelCNN(Spec(3, (4, 4, 1)), width=8, depth=1, head_width=8))
    forced = torch.full((3, 16), -1)
    forced[0, :6], forced[1, :2], forced[2, 9] = 1, 2, 0
    steps = Steps(net, begun(net, [1, 2, 3], 16, forced))
    for _ in steps:
        pass
    for i in range(3):
        alone = generate(net, [i + 1], forced=forced[i : i + 1], processors=[]).tokens
        assert torch.equal(steps.state.tokens[i], alone[0])
    with pytest.raises(UserError, match=r"lengths: \[16, 5\] differ, but the images"):
        generate(net, [1, 2], lengths=[16, 5])


@pytest.mark.parametrize("limits", [[0, 5], [201, 5], [5]])
def test_limits_out_of_range_are_refused(limits: list[int]) -> None:
    with pytest.raises(UserError, match="lengths: "):
        generate(networks()[0], [1, 2], LENGTH, lengths=limits)


def test_a_state_of_another_network_is_refused() -> None:
    first, second = networks()[0], networks()[0]
    state = begun(first, [1], 20)
    with pytest.raises(UserError, match="another network made it"):
        Steps(second, state)
    with pytest.raises(UserError, match="several networks"):
        concatenate([state, begun(second, [1], 20)])
    next(Steps(first, state))
    with pytest.raises(UserError, match="consumed"):
        next(Steps(first, state))


def test_a_request_that_does_not_fit_leaves_the_batch_as_it_was() -> None:
    for net in (networks()[0], networks()[2]):
        steps = Steps(net, begun(net, [1, 2], 20))
        next(steps)
        with pytest.raises(UserError, match="do not fit the running batch"):
            steps.state.assign(torch.tensor([0]), begun(net, [3], 30))
        other = begin(net, *prepare(net, [3], 20, None), [Greedy()])
        with pytest.raises(UserError, match="processors: the rows have different ones"):
            steps.state.assign(torch.tensor([0]), other)
        for _ in steps:
            pass
        assert torch.equal(steps.state.tokens, generate(net, [1, 2], 20).tokens)


@pytest.mark.parametrize("number", range(4))
def test_what_a_state_has_taken_is_not_read_again(number: int) -> None:
    """Rows that are begun from the state of a row so far are those that are begun anew."""
    net = networks()[number].double().eval()
    forced, _, context = requests(net, 4)
    forced[:, :7], forced[1, 7:] = (
        3,
        -1,
    )  # the shortest prompt has 7 tokens, and one of them no more than these
    anew = begin(net, forced[:, :60], row_seeds(0, 4), context=context)
    count, seen = 5, list[int]()
    with torch.inference_mode():
        _, state = net.start(4, 60, context)
        chunk, state = net.advance(forced[:, :count], state)
    advance = net.advance

    def counted(tokens: Tensor, state: Any, lengths: Tensor | None = None) -> Any:
        seen.append(tokens.shape[1])
        return advance(tokens, state, lengths)

    net.advance = counted  # type: ignore[method-assign]
    started = chunk[:, -1], state
    more = begin(
        *(net, forced[:, :60], row_seeds(0, 4)), context=context, started=started, read=count
    )
    del net.advance
    assert seen == [int(anew.prompt_lengths.clamp(max=59).max()) - count]
    assert torch.allclose(more.logits, anew.logits, rtol=0, atol=1e-12)
    assert (more.log_prob[:, :count] == 0).all()
    assert torch.allclose(more.log_prob[:, count:], anew.log_prob[:, count:], rtol=0, atol=1e-12)
    rows = [Steps(net, state, block=8) for state in (more, anew)]
    for one in rows:
        list(one)
    assert torch.equal(rows[0].state.tokens, rows[1].state.tokens)
    with pytest.raises(UserError, match=r"read: 8 .*choose 0 to the tokens of the shortest prompt"):
        begin(net, forced, row_seeds(0, 4), context=context, read=8)
