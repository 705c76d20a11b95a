"""Batches of plain tensors, as a user's own `Dataset` yields them, and the checkpoint of such a run."""

import pytest
import pytorch_lightning as pl
import torch
from conftest import run_arlm
from torch.utils.data import DataLoader, TensorDataset

import arlm
from arlm.core import Spec
from arlm.data.dataset import FixedRows, plain_batch
from arlm.domains import Domain, TextDomain
from arlm.errors import UserError
from arlm.models.rnn import LSTMLanguageModel
from arlm.reports.shown import Shown
from arlm.reports.view import View
from arlm.tokenizers import BPETokenizer, ByteTokenizer
from arlm.training.module import AutoregressiveModule


def test_what_follows_the_end_and_padding_are_not_scored() -> None:
    tokens = torch.tensor([[0, 4, 1, 4], [5, 2, 3, 5]], dtype=torch.uint8)
    batch = plain_batch(tokens, Spec(6, (4,), pad_id=5, eos_id=4))
    assert batch.tokens.dtype == torch.long
    assert batch.tokens.tolist() == tokens.tolist()
    assert batch.scored.tolist() == [[True, True, False, False], [False, True, True, False]]
    assert batch.units.tolist() == [[1.0] * 4] * 2
    assert batch.context is None


def test_end_that_pads_too_is_scored_once() -> None:
    batch = plain_batch(torch.tensor([[1, 0, 0]]), Spec(2, (3,), pad_id=0, eos_id=0))
    assert batch.scored.tolist() == [[True, True, False]]


def test_units_are_the_domains_and_labels_are_contexts() -> None:
    domain = TextDomain(BPETokenizer.train(["ababab abab"], vocab_size=258))
    tokens = torch.arange(258)[None]
    batch = plain_batch([tokens, torch.tensor([3])], domain.spec(258), domain)
    assert batch.units.equal(domain.units(tokens))
    assert batch.units.max() > 1
    assert batch.context is not None
    assert batch.context.tolist() == [[3]]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (torch.zeros(2, 3), r"holds torch.float32; yield tokens as integers"),
        (torch.zeros(3, dtype=torch.long), r"a batch is \[\(3,\)\]; yield tokens \(B, T\)"),
        ({"tokens": torch.zeros(2, 3)}, r"a batch is \['str'\]"),
        (
            torch.tensor([[0, 1], [1, 2]]),
            r"row 1 holds the token 2 at position 1; .* has 2, 0 to 1",
        ),
        (torch.tensor([[0, -1], [1, 2]]), r"row 0 holds the token -1 at position 1"),
        (
            [torch.zeros(3, 2).long(), torch.tensor([0, 1, 7])],
            r"row 2 holds the context's token 7 at position 0; the vocabulary has 5",
        ),
    ],
)
def test_other_batches_are_refused(found: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plain_batch(found, Spec(2, (3,), context=Spec(5, (1,), kind="label")))


def test_rows_outside_the_vocabulary_are_refused() -> None:
    tokens = torch.zeros(9, 4, dtype=torch.int32)
    FixedRows(tokens, TextDomain(ByteTokenizer()))
    tokens[6, 2] = 256
    with pytest.raises(UserError, match="row 6 holds the token 256 at position 2"):
        FixedRows(tokens, TextDomain(ByteTokenizer()))


def test_run_on_plain_tensors(tmp_path) -> None:
    domain = TextDomain(ByteTokenizer())
    rows = torch.randint(97, 123, (16, 8), generator=torch.Generator().manual_seed(0))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    module = AutoregressiveModule(
        domain.spec(8), lambda spec: LSTMLanguageModel(spec, width=8), domain=domain
    )
    trainer = pl.Trainer(max_steps=2, accelerator="cpu", enable_checkpointing=False, **quiet)
    trainer.fit(module, DataLoader(TensorDataset(rows), batch_size=8))
    path = tmp_path / "plain.ckpt"
    trainer.save_checkpoint(path)
    net, loaded, *_ = arlm.load(path)
    assert loaded.decode(rows[0]) == domain.decode(rows[0])
    assert net.log_prob(rows).equal(module.net.log_prob(rows))
    error = run_arlm("evaluate", path).error()
    assert "it names no data; give --data" in error


class Plain(View[Domain]):
    """Shows nothing."""

    purpose = "draws dots"

    def show(self, tokens: torch.Tensor) -> Shown:
        return Shown(tokens.numel())


def test_view_without_prompts_takes_the_empty_one() -> None:
    view = Plain(TextDomain(ByteTokenizer()))
    assert view.prompt("", "--prompt").shape == (0,)
    with pytest.raises(UserError, match="--prompt: the checkpoint draws dots; omit it"):
        view.prompt("a", "--prompt")
