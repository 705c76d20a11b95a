"""Continuous batching: every result is that of the request alone, whatever enters and leaves beside it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any
from unittest.mock import patch

import laws
import pytest
import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec
from arlm.data.dataset import generator
from arlm.errors import UserError
from arlm.inference.async_batcher import AsyncBatcher, asynchronous
from arlm.inference.batcher import Batcher
from arlm.inference.completer import stream
from arlm.inference.prompt_reader import PromptReader, passes
from arlm.inference.requests import Request, Update, joined
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import Details, Gumbel, Uniform, begin_steps, generate, prepare
from arlm.sampling.processors import History, LogitsProcessor, parse_processors
from arlm.sampling.steps import Steps

V, END, WINDOW = 12, 11, 40
MIROSTAT = parse_processors("frequency_penalty=0.4,temperature=0.9,mirostat=2.5")


def decode(tokens: Tensor) -> str:
    return "".join(chr(97 + token) for token in tokens.tolist())


def network(number: int, eos_id: int | None = END) -> Autoregressor:
    torch.manual_seed(number)
    spec = Spec(V, (WINDOW,), eos_id=eos_id)
    if number:
        return laws.lively(LSTMLanguageModel(spec, width=16, depth=2))
    return laws.lively(TransformerLanguageModel(spec, width=16, depth=2, heads=2))


def requests(count: int, longest: int = WINDOW, **more: Any) -> list[Request]:
    """Prompts and budgets of all lengths."""
    random, found = generator(5), []
    for seed in range(count):
        size = int(torch.randint(longest, (1,), generator=random))
        budget = 1 + int(torch.randint(longest - size, (1,), generator=random))
        prompt = torch.randint(END, (size,), generator=random)
        found.append(Request(prompt, seed, budget, **more))
    return found


def alone(net: Autoregressor, request: Request, **more: Any) -> tuple[Tensor, Tensor, str]:
    """Tokens, log-probabilities and reason of a request that is drawn by `generate`."""
    size = len(request.prompt)
    length = size + request.new_tokens
    forced = request.prompt[None] if size else None
    found = generate(
        *(net, [request.seed], length),
        forced=forced,
        stop_tokens=request.stop_tokens,
        **more,
    )
    end, (reason,) = int(found.lengths), found.finish
    for n in range(size + 1, end + 1):
        if any(one in decode(found.tokens[0, size:n]) for one in request.stop):
            end, reason = n, "stop"
            break
    assert reason is not None
    return found.tokens[0, size:end], found.log_prob[0, size:end], reason


def check(net: Autoregressor, asked: Sequence[Request], found: Sequence[Update], **more) -> None:
    for request, update in zip(asked, found, strict=True):
        tokens, log_prob, reason = alone(net, request, **more)
        assert update.tokens.tolist() == tokens.tolist()
        assert (update.log_prob - log_prob).abs().max() < 1e-10
        assert update.finish == reason


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize(("slots", "block"), [(1, 8), (5, 1), (5, 8), (40, 4)])
def test_every_result_is_that_of_the_request_alone(number: int, slots: int, block: int) -> None:
    net, asked = network(number), requests(24)
    check(net, asked, Batcher(net, slots, block=block).run(asked))


@pytest.mark.parametrize("number", range(2))
def test_processors_with_memories_noise_and_sliding_windows(number: int) -> None:
    net, asked = network(number, None), requests(14, 3 * WINDOW)
    for noise in (Uniform(), Gumbel()):
        batcher = Batcher(net, 4, 3 * WINDOW, processors=MIROSTAT, noise=noise)
        check(net, asked, batcher.run(asked), processors=MIROSTAT, noise=noise)


def test_stop_strings_and_tokens_end_a_request_whatever_the_block() -> None:
    net = network(1)
    asked = requests(10, stop=("ab", "cdc", "hh"))
    asked += [replace(one, stop=(), stop_tokens=(3, seed)) for seed, one in enumerate(asked)]
    for block in (1, 7):
        batcher = Batcher(net, 3, block=block, decode=decode)
        found = batcher.run(asked)
        check(net, asked, found)
        for request, update in zip(asked, found, strict=True):
            text = decode(update.tokens)
            ends = [text.index(one) for one in request.stop if one in text]
            assert update.text == text[: min(ends, default=None)]
    assert sum(one.finish == "stop" for one in found) > 6
    assert {one.finish for one in found} == {"stop", "end", "length"}


def test_updates_join_to_the_result_and_have_details() -> None:
    net, asked = network(0), requests(6)
    given: dict[str, Any] = {"processors": MIROSTAT}
    batcher = Batcher(net, 2, decode=decode, details=Details(True, 3), block=3, **given)
    for request, update in zip(asked, batcher.run(asked), strict=True):
        size = len(request.prompt)
        forced = request.prompt[None] if size else None
        expected = generate(
            *(net, [request.seed], size + request.new_tokens),
            forced=forced,
            processed=True,
            top=3,
            **given,
        )
        inside = slice(size, int(expected.lengths))
        assert expected.processed_log_prob is not None
        assert update.processed_log_prob is not None
        gap = update.processed_log_prob - expected.processed_log_prob[0, inside]
        assert gap.abs().max() < 1e-10
        assert update.top is not None
        assert expected.top is not None
        assert torch.equal(update.top.tokens, expected.top.tokens[0, inside])
        assert update.text == decode(update.tokens)


def test_requests_come_in_order_and_slots_bound_the_batch() -> None:
    net, asked = network(1), requests(30)
    batcher, widths, begun = Batcher(net, 4, block=2), [], []
    numbers = [batcher.submit(one) for one in asked]
    while batcher.open:
        for update in batcher.step():
            if update.request not in begun:
                begun.append(update.request)
        widths.append(0 if batcher._steps is None else len(batcher._steps.state.rows))
    assert numbers == begun == list(range(30))
    assert max(widths) == 4
    assert widths[-1] <= 2  # rows leave the batch when nothing takes their place
    batcher.step()
    assert batcher._steps is None
    # It goes on after it was idle.
    check(net, asked[:5], batcher.run(asked[:5]))


@pytest.mark.parametrize("number", range(2))
def test_requests_that_arrive_over_time_take_free_and_new_slots(number: int) -> None:
    net, asked = network(number), requests(30)
    batcher, waiting = Batcher(net, 8, block=3), list(asked)
    parts: dict[int, list[Update]] = {number: [] for number in range(30)}
    for turn in range(200):
        for _ in range((0, 3, 1, 0, 5)[turn % 5]):
            if waiting:
                batcher.submit(waiting.pop(0))
        updates = batcher.step()
        numbers = [update.request for update in updates]
        assert len(set(numbers)) == len(numbers) <= 8
        for update in updates:
            parts[update.request].append(update)
    assert not batcher.open
    check(net, asked, [joined(updates) for updates in parts.values()])


def test_classes_are_labels() -> None:
    torch.manual_seed(0)
    spec = Spec(V, (WINDOW,), context=Spec(3, (1,), kind="label"))
    net = laws.lively(TransformerLanguageModel(spec, width=16, depth=1, heads=2))
    asked = [replace(one, label=seed % 3) for seed, one in enumerate(requests(6))]
    for request, update in zip(asked, Batcher(net, 2).run(asked), strict=True):
        tokens, *_ = alone(net, request, context=torch.tensor([[request.label]]))
        assert update.tokens.tolist() == tokens.tolist()
    with pytest.raises(UserError, match="label: 3 is out of range; choose 0 to 2"):
        Batcher(net).submit(Request(PROMPT, 0, 2, label=3))


def test_cancelled_requests_leave_and_do_not_touch_others() -> None:
    net, asked = network(0, None), requests(9)
    asked = [replace(one, new_tokens=WINDOW - len(one.prompt)) for one in asked]
    batcher = Batcher(net, 2, block=2)
    for one in asked:
        batcher.submit(one)
    parts: dict[int, list[Update]] = {number: [] for number in range(9)}
    for update in batcher.step():
        parts[update.request].append(update)
    for number in (1, 7, 99):  # one that runs, one that waits, one that is not known
        batcher.cancel(number)
    for update in batcher:
        parts[update.request].append(update)
    for number, updates in parts.items():
        assert [update.finish is None for update in updates].count(False) == 1
        tokens = torch.cat([update.tokens for update in updates]).tolist()
        expected, _, reason = alone(net, asked[number])
        if number in (1, 7):
            assert updates[-1].finish == "cancelled"
            assert tokens == expected[: len(tokens)].tolist()
            assert len(tokens) < 3
        else:
            assert (tokens, updates[-1].finish) == (expected.tolist(), reason)


def test_prompts_are_read_in_groups_of_bounded_size() -> None:
    net, asked = network(0), requests(12)
    with patch("arlm.inference.prompt_reader.PROMPT_LOGITS", 100):
        check(net, asked, Batcher(net, 5).run(asked))


PROMPT = torch.tensor([1, 2])


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """All ways to divide items into groups."""
    if not items:
        yield []
        return
    first, *rest = items
    for other in partitions(rest):
        yield [[first], *other]
        for i, group in enumerate(other):
            yield [*other[:i], [first, *group], *other[i + 1 :]]


@pytest.mark.parametrize("each", [0, 3, 8, 100])
@pytest.mark.parametrize("most", [1, 12, 30, 1000])
def test_prompts_are_divided_into_the_cheapest_passes(each: int, most: int) -> None:
    def cost(lengths: list[int], groups: list[list[int]]) -> float:
        total = 0.0
        for group in groups:
            tokens = len(group) * max(1, max(lengths[i] for i in group))
            if tokens > most and len(group) > 1:
                return math.inf
            total += each + tokens
        return total

    for seed in range(4):
        lengths = torch.randint(14, (6,), generator=generator(seed)).tolist()
        found = passes(lengths, most, each)
        assert sorted(chain(*found)) == list(range(6))
        assert cost(lengths, found) == min(cost(lengths, x) for x in partitions(list(range(6))))
    assert passes([], most, each) == []


def test_prompts_are_read_ahead_together() -> None:
    net, asked = network(0), requests(40, 9)
    starts, begin = [], PromptReader._begin

    def counted(self: PromptReader, new: Any) -> Any:
        starts.append(len(new))
        return begin(self, new)

    batcher = Batcher(net, 8, block=2)
    with patch.object(PromptReader, "_begin", counted):
        check(net, asked, batcher.run(asked))
    assert sum(starts) == 40
    assert len(starts) < 20
    assert not batcher._reader._passes


def test_requests_that_are_read_ahead_wait_and_can_be_cancelled() -> None:
    net, asked = network(0, None), requests(12, 9)
    batcher = Batcher(net, 4, waiting=12)
    for one in asked:
        batcher.submit(one)
    found: dict[int, list[Update]] = {number: [] for number in range(13)}
    while not (ready := list(batcher._reader.ready)):
        for update in batcher.step():
            found[update.request].append(update)
    waiting = [number for number in range(12) if batcher.waits(number)]
    assert waiting[: len(ready)] == ready
    for _ in range(12 - len(waiting)):
        batcher.submit(Request(PROMPT, 0, 2))
    with pytest.raises(UserError, match="waiting: 12 is out of range"):
        batcher.submit(Request(PROMPT, 0, 2))
    batcher.cancel(ready[-1])
    for update in batcher:
        found.setdefault(update.request, []).append(update)
    assert [one.finish for one in found.pop(ready[-1])] == ["cancelled"]
    rest = [number for number in range(12) if number != ready[-1]]
    check(net, [asked[n] for n in rest], [joined(found[n]) for n in rest])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(PROMPT, 0, 0), "new_tokens: 0 is out of range"),
        (Request(torch.ones(39).long(), 0, 2), "prompt: 39 tokens and 2 new ones are more than"),
        (Request(torch.tensor([1, V]), 0, 2), f"tokens: {V} is out of range; choose 0 to 11"),
        (Request(PROMPT, 0, 2, stop_tokens=[-1]), "tokens: -1 is out of range"),
        (Request(PROMPT, 0, 2, stop_tokens=range(9)), "stop_tokens: 9 is out of range"),
        (Request(PROMPT, 0, 2, stop=["a"]), "stop: the batcher decodes no text"),
        (Request(PROMPT, 0, 2, label=1), "label: 1 is out of range; omit it"),
        (Request(PROMPT, 0, 2, processors=MIROSTAT), "processors: .* differ from those"),
    ],
)
def test_requests_that_do_not_fit_are_refused(request_: Request, message: str) -> None:
    batcher = Batcher(network(1), 2)
    with pytest.raises(UserError, match=message):
        batcher.submit(request_)
    assert not batcher.open


def test_a_batch_that_cannot_be_is_refused() -> None:
    images = PixelCNN(Spec(3, (2, 2, 1)), width=8, depth=1, head_width=8)
    pairs = LSTMSeq2Seq(Spec(V, (9,), context=Spec(5, (4,))), width=8, embedding=8)
    for net in (images, pairs):
        with pytest.raises(UserError, match="draws images or translations"):
            Batcher(net)
    with pytest.raises(UserError, match="slots: 0"):
        Batcher(network(1), 0)
    batcher = Batcher(network(1), waiting=1, decode=decode)
    batcher.submit(Request(PROMPT, 0, 2))
    with pytest.raises(UserError, match="waiting: 1 is out of range; submit it later"):
        batcher.submit(Request(PROMPT, 0, 2))
    with pytest.raises(UserError, match="stop: '' is out of range"):
        batcher.submit(Request(PROMPT, 0, 2, stop=[""]))


@dataclass(frozen=True)
class FailsAt(LogitsProcessor):
    """Fails at a position."""

    position: int

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if bool((history.lengths == self.position).any()):
            raise UserError("every token is masked")
        return logits


def test_after_a_failure_those_that_wait_are_served() -> None:
    net, fails = network(1, None), [FailsAt(20)]
    asked = [Request(PROMPT, 0, 30), Request(PROMPT, 1, 3), Request(PROMPT, 2, 5)]
    batcher = Batcher(net, 1, processors=fails)
    for one in asked:
        batcher.submit(one)
    with pytest.raises(UserError, match="every token is masked"):
        list(batcher)
    assert batcher.open == 2
    found = {update.request: update.finish for update in batcher}
    assert found == {1: "length", 2: "length"}


def test_after_a_failure_those_that_are_read_ahead_are_served() -> None:
    net = network(1, None)
    asked = [Request(PROMPT, seed, 16 - seed) for seed in range(13)]  # end one by one
    batcher = Batcher(net, 8, block=1)
    for one in asked:
        batcher.submit(one)
    while not batcher._reader.ready:
        batcher.step()
    ready = list(batcher._reader.ready)
    failing = patch.object(Steps, "__next__", side_effect=UserError("it failed"))
    with failing, pytest.raises(UserError, match="it failed"):
        batcher.step()
    wait = [n for n in range(13) if batcher.waits(n)]
    assert ready[-1] in wait
    assert batcher.open == len(wait)
    found = list(batcher)
    own = [joined([one for one in found if one.request == number]) for number in wait]
    check(net, [asked[number] for number in wait], own)


def test_after_a_failure_of_the_reader_those_that_only_wait_are_served() -> None:
    net = network(1, None)
    asked = [Request(PROMPT, seed, 5) for seed in range(13)]
    batcher = Batcher(net, 8, block=1)
    for one in asked[:7]:
        batcher.submit(one)
    batcher.step()
    for one in asked[7:]:
        batcher.submit(one)
    failing = patch.object(PromptReader, "_begin", side_effect=UserError("it failed"))
    with failing, pytest.raises(UserError, match="it failed"):
        batcher.step()  # one slot is free, and more prompts are read ahead
    wait = list(range(8, 13))
    assert [n for n in range(13) if batcher.waits(n)] == wait
    assert [number for number, _ in batcher._queue] == wait
    found = list(batcher)
    own = [joined([one for one in found if one.request == number]) for number in wait]
    check(net, [asked[number] for number in wait], own)


def test_asynchronous_requests_take_turns_and_are_cancelled_when_closed() -> None:
    net, asked = network(0, None), requests(9)
    batcher = AsyncBatcher(Batcher(net, 3, block=2, decode=decode))

    async def whole(request: Request) -> list[Update]:
        return [update async for update in batcher.stream(request)]

    async def abandoned() -> None:
        iterator = batcher.stream(Request(PROMPT, 50, WINDOW - 2))
        await anext(iterator)
        await iterator.aclose()  # type: ignore[attr-defined]

    async def main() -> list[list[Update]]:
        with patch.object(batcher.batcher, "cancel") as cancel:
            *found, _ = await asyncio.gather(*map(whole, asked), abandoned())
        assert [call.args for call in cancel.call_args_list] == [(9,)]
        assert batcher._driver is not None
        await batcher._driver
        return found

    for request, updates in zip(asked, asyncio.run(main()), strict=True):
        tokens, _, reason = alone(net, request)
        assert torch.cat([update.tokens for update in updates]).tolist() == tokens.tolist()
        assert "".join(update.text for update in updates) == decode(tokens)
        assert updates[-1].finish == reason
    assert batcher.batcher.open == 0
    assert batcher._queues == {}


def test_an_asynchronous_failure_reaches_the_requests_that_it_ended() -> None:
    async def main() -> list[Any]:
        batcher = AsyncBatcher(Batcher(network(1, None), 1, processors=[FailsAt(20)]))

        async def whole(budget: int) -> str | None:
            return [update async for update in batcher.stream(Request(PROMPT, 0, budget))][
                -1
            ].finish

        with pytest.raises(UserError, match="new_tokens: 0"):
            await whole(0)
        return await asyncio.gather(whole(30), whole(3), return_exceptions=True)

    failed, finish = asyncio.run(main())
    assert isinstance(failed, UserError)
    assert finish == "length"


def test_any_iterator_is_asynchronous() -> None:
    net = network(1, None)

    def pieces() -> Any:
        return stream(begin_steps(net, *prepare(net, [3], 9, None)), decode)

    async def main() -> list:
        return [piece async for piece in asynchronous(pieces())]

    found = asyncio.run(main())
    assert found == list(pieces())
    assert all(not first.ended for first, _ in pairwise(found))
    assert found[-1].finish == "length"


def test_rows_start_from_the_weights_that_the_network_has_now() -> None:
    torch.manual_seed(0)
    net = LSTMLanguageModel(Spec(7, (12,)), width=8, depth=1).eval()
    batcher = Batcher(net, slots=2)
    asked = [Request(torch.tensor([3]), seed, 8) for seed in range(3)]
    before = [update.tokens.tolist() for update in batcher.run(asked)]
    for weight in net.parameters():
        weight.data.normal_(std=2.0)  # of which autograd knows nothing
    found = [update.log_prob for update in batcher.run(asked)]
    fresh = [update.log_prob for update in Batcher(net, slots=2).run(asked)]
    for one, other in zip(found, fresh, strict=True):
        assert torch.equal(one, other)
    assert before != [update.tokens.tolist() for update in batcher.run(asked)]
