"""Speculative decoding draws the tokens of `generate`, whatever the draft proposes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import laws
import pytest
import torch
from torch import Tensor

from arlm.adapters import LogitArithmetic
from arlm.core import Autoregressor, Spec
from arlm.data.dataset import generator
from arlm.errors import UserError
from arlm.models.ngram import KneserNeyNGram
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import GRULanguageModel, LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.sampling import Details, Gumbel, Noise, Uniform, generate
from arlm.sampling.drafts import Draft, NetworkDraft, PromptLookup, Rows
from arlm.sampling.processors import parse_processors
from arlm.sampling.sliding import begin_steps
from arlm.sampling.speculative import Speculation, speculate, speculative
from arlm.sampling.steps import Steps

VOCABULARY, LENGTH, ROWS, END = 9, 24, 7, 8
SPEC = Spec(VOCABULARY, (LENGTH,), pad_id=7, eos_id=END)
CHAIN = "temperature=0.9,frequency_penalty=0.4:prompt=true,mirostat=1.5"


class Constant(Draft):
    """Always the same token."""

    def propose(self, rows: Rows, count: int) -> Tensor:
        return torch.full((len(rows.lengths), count), 3)


class Adversary(Draft):
    """The token that the network finds the least likely at each position."""

    def __init__(self, net: Autoregressor) -> None:
        self.net = net

    def propose(self, rows: Rows, count: int) -> Tensor:
        proposed = []
        for _ in range(count):
            logits = self.net(rows.tokens.clone())
            at = rows.lengths.clamp(max=rows.tokens.shape[1] - 1)
            proposed.append(logits[torch.arange(len(at)), at].argmin(-1))
            rows.append(proposed[-1], [torch.zeros(len(at), VOCABULARY).double()] * 3, rows.live)
        return torch.stack(proposed, 1)


class Ragged(Draft):
    """The tokens of another draft, of which row i proposes i % 3, and one more than there is room for."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    def propose(self, rows: Rows, count: int) -> Tensor:
        proposed = self.draft.propose(rows, count)
        each = torch.arange(len(proposed))[:, None] % 3
        proposed = proposed.masked_fill(torch.arange(proposed.shape[1]) >= each, -1)
        return torch.nn.functional.pad(proposed, (0, 1), value=1)


def transformer(**options) -> Autoregressor:
    return TransformerLanguageModel(options.pop("spec", SPEC), 16, 2, 2, **options)


def targets() -> dict[str, Autoregressor]:
    """States that rewind, that do not, and of two networks of both kinds."""
    torch.manual_seed(0)
    parts = [lambda spec: LSTMLanguageModel(spec, 8, 1), lambda spec: transformer(spec=spec)]
    nets = {
        "transformer": transformer(),
        "lstm": LSTMLanguageModel(SPEC, 12, 2),
        "recomputed": Recomputed(SPEC, 16, 1, 2),
        "both": LogitArithmetic(SPEC, parts, [0.6, 0.4]),
    }
    for net in (*nets.values(), *nets["both"].nets):
        laws.lively(net)
        if hasattr(net, "head"):
            net.head.bias.data[END] -= 3.0  # rows end, of many lengths
    return nets


class Recomputed(TransformerLanguageModel):
    """A network that is decoded by whole prefixes."""

    start, advance = Autoregressor.start, Autoregressor.advance


def drafts(net: Autoregressor) -> dict[str, Draft]:
    torch.manual_seed(1)
    ngram = KneserNeyNGram(SPEC, order=3)
    ngram.count(torch.randint(VOCABULARY, (30, LENGTH), generator=generator(5)))
    return {
        "itself": NetworkDraft(net),
        "lstm": NetworkDraft(laws.lively(GRULanguageModel(SPEC, 8, 1))),
        "transformer": NetworkDraft(laws.lively(transformer(positions="learned"))),
        "short": NetworkDraft(laws.lively(transformer(spec=replace(SPEC, shape=(7,))))),
        "ngram": NetworkDraft(ngram),
        "lookup": PromptLookup(),
        "constant": Constant(),
        "adversary": Adversary(net),
        "ragged": Ragged(NetworkDraft(net)),
    }


NAMES = list(drafts(transformer()))


def requests() -> dict:
    """Prompts of 0 to 20 tokens, given tokens later, and budgets."""
    tokens = torch.randint(7, (ROWS, LENGTH), generator=generator(3))
    prompts = torch.tensor([0, 1, 5, 20, 3, 0, 2])
    forced = tokens.where(torch.arange(LENGTH) < prompts[:, None], -1)
    forced[2, 9], forced[4, 4:8], forced[6, LENGTH - 1] = 1, 2, 3
    return {"forced": forced, "lengths": [24, 24, 24, 24, 12, 1, 24]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["transformer", "lstm", "recomputed", "both"])
def test_tokens_are_those_of_generate(kind: str, name: str) -> None:
    net = targets()[kind]
    draft = drafts(net)[name]
    chains = ("", CHAIN) if kind in ("transformer", "lstm") else (CHAIN,)
    most = 6 if name == "short" else 3  # 6 are more than half of its window
    ways = ((Uniform(), 1), (Gumbel(), most))
    for chain, (noise, count) in itertools.product(chains, ways):
        given = {"processors": parse_processors(chain), "noise": noise, **requests()}
        expected = generate(net, range(ROWS), LENGTH, **given)
        found = speculative(net, range(ROWS), LENGTH, draft=draft, draft_tokens=count, **given)
        assert torch.equal(found.tokens, expected.tokens)
        assert (found.log_prob - expected.log_prob).abs().max() < 1e-10
        assert (found.finish, found.lengths.tolist()) == (
            expected.finish,
            expected.lengths.tolist(),
        )
        assert 0 <= found.accepted <= found.compared
        if name in ("itself", "ragged"):
            assert found.accepted == found.compared
        if name == "adversary":
            assert found.accepted < found.compared / 4


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_the_network_itself_needs_the_fewest_passes(kind: str) -> None:
    """20 tokens in rounds of 1 + 4: a pass each, and none repeated."""
    net = laws.lively(
        transformer(spec=Spec(5, (20,)))
        if kind == "transformer"
        else LSTMLanguageModel(Spec(5, (20,)), 8, 1)
    )
    given = {"processors": parse_processors("mirostat=2")}
    found = speculative(net, [1, 2], draft=NetworkDraft(net), draft_tokens=4, **given)
    assert found.accepted == found.compared == 2 * 16
    assert found.passes == 4


def test_a_draft_that_knows_nothing_costs_a_pass_for_each_token() -> None:
    net = laws.lively(transformer(spec=Spec(5, (20,))))
    found = speculative(net, [1], draft=Constant())
    expected = generate(net, [1], noise=Gumbel())
    assert torch.equal(found.tokens, expected.tokens)
    guessed = int((expected.tokens[0, 1:] == 3).sum())
    assert found.passes >= 19 - guessed > 10


@pytest.mark.parametrize("window", [8, 12])
def test_windows_slide_as_those_of_generate(window: int) -> None:
    net = laws.lively(transformer(spec=replace(SPEC, shape=(window,))))
    for name, chain in (("itself", ""), ("lstm", CHAIN), ("lookup", CHAIN), ("ngram", "")):
        given = {"processors": parse_processors(chain), "noise": Gumbel(), **requests()}
        expected = generate(net, range(ROWS), LENGTH, **given)
        draft = drafts(net)[name]
        found = speculative(net, range(ROWS), LENGTH, draft=draft, **given)
        assert torch.equal(found.tokens, expected.tokens)
        assert (found.log_prob - expected.log_prob).abs().max() < 1e-10


def test_translations_and_single_images() -> None:
    pairs = replace(SPEC, context=Spec(6, (5,), pad_id=5))
    net = laws.lively(TransformerSeq2Seq(pairs, width=16, depth=1, heads=2))
    context = laws.contexts(net, 5)
    draft = NetworkDraft(laws.lively(TransformerSeq2Seq(pairs, 8, 1, 2)), context)
    for each in (draft, NetworkDraft(net, context)):
        found = speculative(net, range(5), draft=each, context=context)
        expected = generate(net, range(5), context=context, noise=Gumbel())
        assert torch.equal(found.tokens, expected.tokens)
    assert found.accepted == found.compared
    image = laws.lively(PixelCNN(Spec(3, (3, 4, 1)), width=8, depth=1, head_width=8))
    found = speculative(image, [4], draft=NetworkDraft(image))
    assert torch.equal(found.tokens, generate(image, [4], noise=Gumbel()).tokens)
    with pytest.raises(UserError, match=r"^draft: the images of a batch are at the same pixel"):
        speculative(image, [4, 5], draft=NetworkDraft(image))


def test_a_draft_serves_several_calls_and_rows_that_change() -> None:
    """Rows are stopped, replaced and joined between rounds; the draft notices."""
    net = targets()["transformer"]
    for name in ("itself", "lstm", "short"):
        draft = drafts(net)[name]

        def begun(seeds: list[int]) -> Steps:
            return begin_steps(*(net, torch.full((len(seeds), LENGTH), -1), seeds), noise=Gumbel())

        steps = speculate(begun([0, 1, 2]), Speculation(draft, 2))
        next(steps)
        steps.state = steps.state.assign(torch.tensor([1]), begun([5]).state)
        next(steps)
        steps.state = steps.state.concatenated([begun([6]).state])
        list(steps)
        expected = generate(net, [0, 5, 2, 6], noise=Gumbel())
        assert torch.equal(steps.state.tokens, expected.tokens), name
        assert (steps.state.log_prob - expected.log_prob).abs().max() < 1e-10
        again = speculative(net, [9], draft=draft)
        assert torch.equal(again.tokens, generate(net, [9], noise=Gumbel()).tokens)


def test_blocks_hold_the_rows() -> None:
    net = targets()["lstm"]
    free = torch.full((4, LENGTH), -1)
    expected = generate(net, range(4), noise=Gumbel())
    draft = drafts(net)["ragged"]
    steps = speculate(begin_steps(net, free, range(4), noise=Gumbel()), Speculation(draft))
    tokens, lengths = torch.full((4, LENGTH), -1), torch.zeros(4).long()
    for block in steps:
        assert torch.equal(block.positions, lengths)
        for row, count in enumerate(block.lengths.tolist()):
            first = int(lengths[row])
            tokens[row, first : first + count] = block.tokens[row, :count]
            assert (block.log_prob[row, count:] == 0).all()
        lengths += block.lengths
    drawn = torch.arange(LENGTH) < lengths[:, None]
    assert torch.equal(tokens[drawn], expected.tokens[drawn])


def test_lookup_copies_what_followed_the_longest_end() -> None:
    def proposed(row: list[int], count: int, longest: int = 3) -> list[int]:
        state = begin_steps(
            *(transformer(), torch.tensor([row + [-1] * (LENGTH - len(row))]), [0])
        ).state
        rows = Rows(
            *(state.tokens, state.lengths, ~state.ended, state.limits, state.prompt_lengths),
            *(state.forced, state.seeds, state.noise, (), (), SPEC, state.stop_tokens),
        )
        return PromptLookup(longest).propose(rows, count)[0].tolist()

    assert proposed([1, 2, 3, 5, 4, 2, 3, 6, 1, 2, 3], 2) == [5, 4]  # 1 2 3, not the later 2 3
    assert proposed([1, 2, 3, 5, 4, 2, 3, 6, 1, 2, 3], 2, 2) == [6, 1]  # the last 2 3
    assert proposed([4, 1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]  # beyond the row's end
    assert proposed([1, 2, 3], 2) == [-1, -1]
    assert proposed([], 2) == [-1, -1]
    assert proposed([0, 0], 2) == [0, 0]
    assert proposed([5], 1) == [-1]


def other(spec: Spec) -> Draft:
    return NetworkDraft(LSTMLanguageModel(spec, 4, 1))


def test_drafts_of_other_tokens_are_refused() -> None:
    spec = replace(SPEC, fingerprint="a" * 20)
    net = transformer(spec=spec)
    for wrong, says in (
        (replace(spec, fingerprint="b" * 20), f"9 of tokenizer {'b' * 16}, not 9 of tokenizer aaa"),
        (replace(spec, fingerprint=None), "9, not 9 of tokenizer"),
        (replace(spec, vocab_size=10), "10 of tokenizer"),
    ):
        with pytest.raises(UserError, match=r"^draft: it has other tokens than the net") as caught:
            speculative(net, [1], draft=other(wrong))
        assert says in str(caught.value)
    speculative(net, [1], 3, draft=other(replace(spec, shape=(3,))))
    with pytest.raises(UserError, match=r"^draft-tokens: 0"):
        Speculation(Constant(), 0)
    with pytest.raises(UserError, match=r"^draft\.longest: 0"):
        PromptLookup(0)


def test_a_draft_with_classes_says_what_to_take() -> None:
    labels = Spec(3, (1,), kind="label")
    with pytest.raises(
        UserError, match=r"draft: its rows have classes.* take a run without labels"
    ):
        NetworkDraft(transformer(spec=replace(SPEC, context=labels))).check(transformer())
    free = replace(SPEC, context=replace(labels, null_id=2))
    found = speculative(transformer(), [1], draft=NetworkDraft(transformer(spec=free)))
    assert len(found.tokens) == 1


def test_shared_gumbel_noise_couples_better_than_uniform_noise() -> None:
    """2,000 pairs of close distributions; expected are 0.80 and 0.61 equal draws of 65 tokens."""
    random = generator(0)
    first = 2.5 * torch.randn(2000, 65, generator=random, dtype=torch.float64)
    second = first + 0.5 * torch.randn(2000, 65, generator=random, dtype=torch.float64)
    seeds = torch.arange(2000)

    def equal(noise: Noise) -> float:
        numbers = noise.numbers(seeds, torch.zeros(2000, 1).long()).squeeze(1)
        return float(
            (noise.draw(first, numbers, None) == noise.draw(second, numbers, None)).double().mean()
        )

    assert equal(Gumbel()) > 0.75 > 0.66 > equal(Uniform())


def test_details_under_a_draft_are_refused() -> None:
    """It draws several tokens at once; before, such blocks were returned without their details."""
    net = laws.lively(LSTMLanguageModel(SPEC, 6, 1))
    for details in (Details(top=2), Details(processed=True)):
        begun = begin_steps(net, torch.full((2, 5), -1), torch.arange(2), details=details)
        with pytest.raises(UserError, match=r"^draft: it draws several tokens at once, without"):
            speculate(begun, Speculation(Constant()))
    begun.details = Details()
    assert next(speculate(begun, Speculation(Constant()))).top is None
