"""Masked rows: a pure function of seed, epoch and row; at least one target; ordinary tokens; weights of the bound."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from arlm import checkpoints
from arlm.data.corpus import Corpus, in_memory
from arlm.data.corrupted import RowNoise, inside
from arlm.data.dataset import Rows
from arlm.data.folders import Split
from arlm.data.module import TokenDataModule
from arlm.data.text_module import TextDataModule
from arlm.domains import MaskedDomain, SpanDomain, TextDomain
from arlm.errors import UserError
from arlm.tokenizers import BPETokenizer, CharacterTokenizer
from datamodules.masked_text import MaskedText
from datamodules.python_docs import PythonDocs
from datamodules.span_text import SpanText

LETTERS = "abcdefghijklmnop"


class Letters(TextDataModule):
    """Documents of letters, each of one letter and its number, so that a token says where it is from."""

    def __init__(self, sizes: list[int] = [400, 300, 200], **options: Any) -> None:  # noqa: B006
        super().__init__(**options)
        self.domain = TextDomain(CharacterTokenizer(LETTERS))
        self.sizes = sizes

    def read(self, split: Split) -> Corpus:
        texts = [LETTERS[i] * size for i, size in enumerate(self.sizes)]
        return in_memory(texts, self.domain.tokenizer)


def batch_of(data: MaskedText, split: Split = "train", epoch: int = 0, rows: Any = None):
    dataset = data.dataset(split)
    rows = torch.arange(len(dataset)) if rows is None else torch.tensor(rows)
    return dataset[Rows(epoch, rows)]


def test_what_is_masked_is_a_function_of_seed_epoch_and_row() -> None:
    data = MaskedText(PythonDocs(length=32, seed=3))
    first, again, later = (batch_of(data, epoch=e, rows=[5, 9]) for e in (0, 0, 1))
    assert torch.equal(first.context, again.context)
    assert not torch.equal(first.scored, later.scored)
    alone, other = batch_of(data, rows=[9]), batch_of(data, rows=[9, 2, 5])
    assert torch.equal(alone.context[0], first.context[1])
    assert torch.equal(other.scored[2], first.scored[0])
    for epoch in (0, 7):
        held = batch_of(data, "val", epoch, [0, 3])
        assert torch.equal(held.context, batch_of(data, "val", 0, [0, 3]).context)
    seeded = MaskedText(PythonDocs(length=32, seed=4))
    assert not torch.equal(batch_of(seeded, "val", 0, [3]).scored[0], held.scored[1])


def test_streams_of_noise_and_neighbouring_rows_are_independent() -> None:
    noise = RowNoise(0, 1, torch.arange(2000))
    a, b = noise.uniform(0, 40), noise.uniform(1, 40)
    for x, y in ((a, b), (a[1:], a[:-1]), (a, RowNoise(0, 2, torch.arange(2000)).uniform(0, 40))):
        both = torch.stack([x.flatten(), y.flatten()])
        assert abs(float(torch.corrcoef(both)[0, 1])) < 0.02
    assert abs(float(a.mean()) - 0.5) < 0.01


def test_every_row_has_a_target_and_the_share_that_was_asked_for() -> None:
    for length, rate in ((4, 0.01), (64, 0.15), (10, 1.0)):
        batch = batch_of(MaskedText(PythonDocs(length=length), rate=rate))
        assert (batch.scored.sum(1) == max(1, round(length * rate))).all()
    # In evaluation windows overlap, and each token is a candidate in one of them only.
    held = batch_of(MaskedText(PythonDocs(length=64), rate=1.0), "val")
    text = PythonDocs(length=64).corpus("val")
    assert int(held.scored.sum()) == len(text)
    assert batch_of(MaskedText(PythonDocs(length=64)), "val").scored.any(1).all()


def test_chosen_tokens_are_masked_replaced_or_kept() -> None:
    data = MaskedText(PythonDocs(length=128), rate=0.5)
    batch, domain = batch_of(data), data.domain
    assert domain.tokenizer.token_bytes.min() > 0  # also the token of unknown characters
    chosen = batch.context[batch.scored]
    own = batch.tokens[batch.scored]
    masked = chosen == domain.mask_id
    swapped = (chosen != own) & ~masked
    assert float(masked.double().mean()) == pytest.approx(0.8, abs=0.01)
    # One in V replacements is the token itself.
    share = 0.1 * (1 - 1 / domain.tokenizer.vocab_size)
    assert float(swapped.double().mean()) == pytest.approx(share, abs=0.01)
    assert torch.equal(batch.context[~batch.scored], batch.tokens[~batch.scored])
    counts = chosen[swapped].bincount(minlength=domain.vocab_size).double()
    assert counts.min() > 0.5 * counts.mean()
    assert len(counts) == domain.vocab_size


def test_replacements_are_tokens_that_text_has() -> None:
    words = "the cat sat on the mat and the dog ran to the cat " * 40
    tokenizer = BPETokenizer.train([words], vocab_size=300)

    class Special(CharacterTokenizer):
        """Its last three tokens represent no bytes."""

        def __init__(self, alphabet: str) -> None:
            super().__init__(alphabet)
            self.token_bytes = self.token_bytes.clone()
            self.token_bytes[-3:] = 0

    assert len(MaskedDomain(tokenizer).ordinary) == int((tokenizer.token_bytes > 0).sum())
    data = MaskedText(Letters(length=16), rate=1.0, masked=0.0, random=1.0)
    data.domain = MaskedDomain(Special(LETTERS))
    assert set(batch_of(data).context.unique().tolist()) == set(range(len(LETTERS) - 3))


def test_padding_of_short_documents_is_padding_of_the_context() -> None:
    data = MaskedText(Letters([5, 20, 3], length=8, separate_documents=True), rate=0.3)
    for split in ("train", "val"):
        batch = batch_of(data, split)
        pads = batch.context == data.domain.pad_id
        assert int(pads.sum(1).max()) == 5
        assert not (pads & batch.scored).any()
        assert (pads.long().diff(dim=1) >= 0).all()
        assert batch.scored.any(1).all()


def test_inside_is_up_to_the_last_scored_token() -> None:
    scored = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]).bool()
    assert inside(scored).sum(1).tolist() == [3, 4, 1]


def test_weights_of_the_bound_make_every_row_count_once() -> None:
    data = MaskedText(PythonDocs(length=32, stride=32), bound=True)
    for split in ("train", "val"):
        batch = batch_of(data, split)
        assert (batch.context[batch.scored] == data.domain.mask_id).all()
        candidates = data.text.dataset(split)[Rows(0, torch.arange(len(batch.tokens)))].scored
        weights = batch.weights.where(batch.scored, 0)
        total = candidates.sum(1).float()
        assert torch.allclose(weights.sum(1), total)
        units = data.text.domain.units(batch.tokens).where(candidates, 0).sum(1)
        assert torch.allclose((batch.units * weights).sum(1), units, rtol=1e-5)
    # The number of masked tokens is uniform on 1 to T.
    counts = batch_of(data).scored.sum(1).bincount(minlength=33)[1:].double()
    expected = counts.sum() / 32
    assert float(((counts - expected) ** 2 / expected).sum()) < 65  # 31 degrees: p = 0.0003


@pytest.mark.parametrize("pairs", ["order", "next"])
def test_pairs_are_a_label_and_two_segments(pairs: Any) -> None:
    data = MaskedText(Letters(length=16), pairs=pairs)
    domain, batch = data.domain, batch_of(data)
    own = data.text.dataset("train")[Rows(0, torch.arange(len(batch.tokens)))].tokens
    first, second = own[:, :8], own[:, 8:]
    wrong = batch.tokens[:, 0] == domain.labels[1]
    assert 0.2 < float(wrong.double().mean()) < 0.8
    assert ((batch.tokens[:, 0] == domain.labels[0]) | wrong).all()
    assert (batch.tokens[:, 9] == domain.separator).all()
    assert batch.scored[:, 0].all()
    assert (batch.context[:, 0] == domain.mask_id).all()
    assert not batch.scored[:, 9].any()
    assert (batch.scored[:, 1:].sum(1) == round(16 * 0.15)).all()
    a, b = batch.tokens[:, 1:9], batch.tokens[:, 10:]
    assert torch.equal(a[~wrong], first[~wrong])
    assert torch.equal(b[~wrong], second[~wrong])
    if pairs == "order":
        assert torch.equal(a[wrong], second[wrong])
        assert torch.equal(b[wrong], first[wrong])
    else:
        assert (b[wrong][:, 0] != first[wrong][:, 0]).all()  # from another document
        assert len(b[wrong][:, 0].unique()) > 1
    assert data.spec.length == 18
    assert data.spec.vocab_size == domain.vocab_size == len(LETTERS) + 3


def test_segments_of_another_document_are_wholly_of_it() -> None:
    """No token of a segment is of a document that the window touches; windows that touch all of them keep their own."""
    for sizes in ([20, 21, 5, 22, 7], [41, 39]):
        data = MaskedText(Letters(sizes, length=16), pairs="next")
        wrongs = 0
        for epoch in range(40):
            batch = batch_of(data, epoch=epoch)
            own = data.text.dataset("train")[Rows(epoch, torch.arange(len(batch.tokens)))].tokens
            for tokens, window in zip(batch.tokens, own, strict=True):
                wrong = bool(tokens[0] == data.domain.labels[1])
                wrongs += wrong
                if wrong:
                    assert not {*tokens[10:].tolist()} & {*window.tolist()}
                else:
                    assert torch.equal(tokens[10:], window[8:])
        assert wrongs > 30


def test_text_within_is_described_and_built_again() -> None:
    data = MaskedText(PythonDocs(length=24, batch_size=5), rate=0.3)
    described = checkpoints.describe(data)
    assert described["init_args"]["text"]["class_path"] == "datamodules.python_docs.PythonDocs"
    again = checkpoints.build(described, TokenDataModule)
    assert isinstance(again, MaskedText)
    assert (again.batch_size, again.spec) == (5, data.spec)
    assert torch.equal(batch_of(again).context, batch_of(data).context)
    assert again.provenance == data.provenance
    assert "30% of the tokens masked" in data.provenance["protocol"]


def test_only_a_trusted_data_module_is_built_within_another() -> None:
    described = checkpoints.describe(MaskedText(PythonDocs(length=24)))
    text = described["init_args"]["text"]
    for path in ("os.path.join", "arlm.models.bert.BERT", "arlm.tokenizers.byte.ByteTokenizer"):
        described["init_args"]["text"] = text | {"class_path": path, "init_args": {}}
        with pytest.raises(UserError, match="checkpoint: "):
            checkpoints.build(described, TokenDataModule)


def test_the_text_is_read_with_the_tokenizer_of_the_domain_that_is_set() -> None:
    data = MaskedText(Letters(length=16))
    tokenizer = CharacterTokenizer("XYZ" + LETTERS)
    data.domain = MaskedDomain(tokenizer)
    assert data.text.domain.tokenizer is tokenizer
    assert data.spec.vocab_size == len(LETTERS) + 3
    assert int(batch_of(data).tokens.min()) == 3


def test_the_domain_writes_masks_as_text_and_reads_them() -> None:
    domain = MaskedDomain(CharacterTokenizer(LETTERS))
    tokens = domain.encode("ab[MASK]d[MASK]")
    assert tokens.tolist() == [0, 1, domain.mask_id, 3, domain.mask_id]
    padded = torch.cat([tokens, torch.tensor([domain.pad_id])])
    assert domain.decode(padded) == "ab[MASK]d[MASK]"
    pairs = MaskedDomain(CharacterTokenizer(LETTERS), pairs=True)
    assert pairs.decode(torch.tensor([pairs.labels[0], 1, pairs.separator, 2])) == "b\n[SEP]\nc"
    words = "the cat sat on the mat and the dog ran to the cat " * 40
    spaced = MaskedDomain(BPETokenizer.train([words], vocab_size=300))
    assert spaced.decode(spaced.encode("the cat [MASK] on")) == "the cat[MASK] on"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "data.rate: 0.0 is out of range"),
        ({"rate": 1.5}, "data.rate: 1.5"),
        ({"masked": -0.1}, "data.masked: -0.1"),
        ({"masked": 0.8, "random": 0.3}, "data.random: 0.3 is out of range; choose 0 to 0.2"),
        ({"pairs": "both"}, "data.pairs: both"),
        ({"pairs": "order", "bound": True}, "data.bound"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        MaskedText(PythonDocs(length=24), **options).domain  # noqa: B018


def test_texts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.text\.batching: continuous"):
        MaskedText(PythonDocs(length=24, batching="continuous"))
    with pytest.raises(UserError, match=r"data\.text\.length: 25"):
        MaskedText(PythonDocs(length=25), pairs="order")
    with pytest.raises(UserError, match=r"data\.pairs: .* one document"):
        batch_of(MaskedText(Letters([500], length=16), pairs="next"))


@pytest.mark.parametrize(
    ("trained", "options", "name"),
    [
        (MaskedDomain(CharacterTokenizer(LETTERS), bound=True), {}, "bound False"),
        (MaskedDomain(CharacterTokenizer(LETTERS)), {"bound": True}, "bound True"),
        (MaskedDomain(CharacterTokenizer(LETTERS)), {"pairs": "order"}, "pairs True"),
    ],
)
def test_a_domain_for_other_masks_is_refused(
    trained: MaskedDomain, options: dict, name: str
) -> None:
    with pytest.raises(UserError, match=f"data: rows of this data have {name}, but the domain"):
        MaskedText(Letters(length=16), **options).domain = trained


def test_a_domain_for_other_spans_is_refused_unless_it_has_enough_sentinels() -> None:
    tokenizer = CharacterTokenizer(LETTERS)
    data = SpanText(Letters(length=64))
    data.domain = SpanDomain(tokenizer, 30)
    for domain, name in (
        (SpanDomain(tokenizer, 3), "sentinels 4"),
        (SpanDomain(tokenizer, 30, closing=False), "closing True"),
    ):
        with pytest.raises(UserError, match=f"data: rows of this data have {name}, but"):
            data.domain = domain


@pytest.mark.parametrize("pairs", ["none", "order", "next"])
def test_each_token_has_a_position_of_its_own(pairs: Any) -> None:
    data = MaskedText(Letters(length=16), pairs=pairs, rate=1.0)
    dataset = data.dataset("val")
    rows = Rows(0, torch.arange(len(dataset)))
    batch, positions = dataset[rows], dataset.positions(rows)
    assert positions.shape == batch.tokens.shape
    scored = positions[batch.scored]
    assert len(scored.unique()) == len(scored)
