"""CorruptedTextModule: rows of another data module's text, and for each a context that was made from it by chance.

    text: TextDataModule --windows--> tokens (B, T) --corrupt--> Batch(tokens, scored, units, context)

So any text can be masked, and a new corruption is one class. The text decides files, tokenizer, length of the rows,
batch size and seed. What happens to a row is a pure function of (seed, epoch, row) in training and of (seed, row) in
evaluation: it depends neither on the batch nor on the number of processes, and every evaluation scores the same tokens.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from arlm.core import Batch
from arlm.data.dataset import Rows, TokenDataset
from arlm.data.folders import Split
from arlm.data.module import TokenDataModule
from arlm.data.order import ResumableLoader
from arlm.data.text_module import TextDataModule
from arlm.data.windows import TextDataset
from arlm.domains import Domain, TextDomain
from arlm.errors import UserError, require
from arlm.sampling.noise import mix, position_keys, signed, uniform
from arlm.tokenizers import Tokenizer


class RowNoise:
    """The random numbers of a batch's rows, in streams that are independent of one another.

    Args:
        seed, epoch: of the data.
        rows: (B,) int64, the number of each row in its split.
    """

    def __init__(self, seed: int, epoch: int, rows: Tensor) -> None:
        of_epoch = mix(mix(torch.tensor([signed(seed)])) ^ epoch)
        self._rows = mix(of_epoch ^ rows)

    def uniform(self, stream: int, count: int) -> Tensor:
        """Numbers (B, count) float64 in [0, 1)."""
        return uniform(position_keys(self._rows ^ -(stream + 1), torch.arange(count)[None]))


class CorruptedRows(TokenDataset):
    """One split: the rows of a text, each corrupted.

    Args:
        rows: the windows of the text.
        owner: corrupts a batch.
        training: whether rows are corrupted anew in each epoch.
    """

    def __init__(self, rows: TextDataset, owner: CorruptedTextModule, training: bool) -> None:
        self.rows, self.owner, self.training = rows, owner, training

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Rows) -> Batch:
        epoch = rows.epoch + 1 if self.training else 0
        noise = RowNoise(self.owner.seed, epoch, rows.chosen)
        return self.owner.corrupt(self.rows[rows], noise, self.rows, rows)

    def positions(self, rows: Rows) -> Tensor:
        longest = self.owner.spec.length
        if longest == self.rows.length:
            return self.rows.positions(rows)
        # The tokens of a row are not those of its window alone, as with labels and separators.
        return rows.chosen[:, None] * longest + torch.arange(longest)


class CorruptedTextModule(TokenDataModule):
    """A text whose rows are corrupted. A subclass writes `domain_of`, `spec` and `corrupt`.

    Args:
        text: the text; its batching has to be "windows".
    """

    def __init__(self, text: TextDataModule) -> None:
        super().__init__(text.batch_size, text.seed, text.num_workers)
        windows = text.batching == "windows"
        mend = "choose windows, since corrupted rows are independent"
        require(windows, "data.text.batching", text.batching, mend)
        self.text = text
        self._domain: Domain | None = None

    @abstractmethod
    def domain_of(self, tokenizer: Tokenizer) -> Domain:
        """The domain of the corrupted rows of a text with this tokenizer."""

    @abstractmethod
    def corrupt(self, batch: Batch, noise: RowNoise, split: TextDataset, rows: Rows) -> Batch:
        """The batch that is made from windows of the text, whose `scored` says which tokens count in this split.

        Args:
            batch: the windows.
            noise: random numbers of the rows.
            split: the windows of the whole split.
            rows: which of them these are.
        """

    @property
    def domain(self) -> Domain:  # type: ignore[override]
        """The domain; when it is set, as with that of a checkpoint, the text is read with its tokenizer.

        Raises:
            UserError: the domain that is set is for rows that are corrupted in another way.
        """
        if self._domain is None:
            self._domain = self.domain_of(self.text.domain.tokenizer)
        return self._domain

    @domain.setter
    def domain(self, domain: Domain) -> None:
        tokenizer = domain.text_tokenizer
        assert tokenizer is not None
        for name, (theirs, ours) in domain.differences(self.domain_of(tokenizer)).items():
            raise UserError(
                f"data: rows of this data have {name} {ours}, but the domain of the checkpoint has {theirs}; "
                "choose the options of the data that the network was trained with"
            )
        self._domain, self.text.domain = domain, TextDomain(tokenizer)

    def prepare_data(self) -> None:
        self.text.prepare_data()

    def build(self, split: Split) -> CorruptedRows:
        return CorruptedRows(self.text.dataset(split), self, split == "train")  # type: ignore[arg-type]

    def single_pass(self) -> ResumableLoader:
        """The text itself, which is what objectives that count read."""
        return self.text.single_pass()

    @cached_property
    def provenance(self) -> dict[str, str]:
        return self.text.provenance | {"protocol": self.protocol}


def inside(scored: Tensor) -> Tensor:
    """The positions of a window that hold text, (B, T) bool: those up to its last scored token.

    Args:
        scored: (B, T) bool of a batch of windows, of which the tokens at the end are scored.
    """
    return scored.flip(1).cumsum(1).flip(1) > 0
