"""Examples of labelled texts: read from CSV, TSV and JSON-lines files, and padded into batches."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arlm.core import Batch
from arlm.data.dataset import Rows, TokenDataset
from arlm.data.text_files import read_text
from arlm.domains.labelled import LabelledTextDomain
from arlm.errors import UserError

ENDINGS = {".csv": ",", ".tsv": "\t"}
LARGEST = 2**24  # characters of a field of a CSV file


class Example(NamedTuple):
    """The texts of an example, and its label."""

    texts: tuple[str, ...]
    label: str
    where: str  # what error messages call it


class LabelledTexts(TokenDataset):
    """Rows of one token, with texts as their context; a batch is padded to its longest text.

    Args:
        contexts: tokens (K, S) of the texts of each row.
        labels: tokens (N, 1).
        domain: of both.
    """

    def __init__(
        self, contexts: Sequence[Tensor], labels: Tensor, domain: LabelledTextDomain
    ) -> None:
        self.contexts, self.tokens, self.domain = contexts, labels, domain
        sizes = [(context.numel(), 1) for context in contexts]
        self.lengths = torch.tensor(sizes).view(-1, 2)

    def __len__(self) -> int:
        return len(self.contexts)

    def __getitem__(self, rows: Rows) -> Batch:
        tokens = self.tokens[rows.chosen]
        context = self.domain.contexts([self.contexts[i] for i in rows.chosen.tolist()])
        return Batch(tokens, torch.ones_like(tokens).bool(), self.domain.units(tokens), context)


def read_examples(path: Path, texts: Sequence[str], label: str, field: str) -> list[Example]:
    """The examples of a file: .csv or .tsv with the names of its columns in the first line, or JSON lines.

    A column of JSON lines may hold a list of texts, such as the choices of a question. Files may be gz.

    Args:
        path: the file.
        texts: the columns of the texts, in order.
        label: the column of the label.
        field: what error messages call the file.

    Raises:
        UserError: the file cannot be read, or has no such column, or a text that is empty; it names the line.
    """
    content = read_text(path, field)
    ending = Path(path.name.removesuffix(".gz")).suffix
    rows = table(content, ENDINGS[ending], path) if ending in ENDINGS else objects(content, path)
    found = []
    for where, row in rows:
        for name in (*texts, label):
            if name not in row:
                names = ", ".join(map(str, row))
                raise UserError(f"{where}: there is no {name!r}; choose from {names}")
        given: list[str] = []
        for name in texts:
            value = row[name]
            given += [
                text_of(part, name, where)
                for part in (value if isinstance(value, list) else [value])
            ]
        value = row[label]
        if isinstance(value, str):
            whole(value, label, where)
        if not isinstance(value, str | int | float) or value == "":
            raise UserError(f"{where}: {label!r} is {value!r}; give a class or a number")
        found.append(Example(tuple(given), str(value), where))
    if not found:
        raise UserError(f"{field}: '{path}' has no examples; give at least one line of them")
    return found


def text_of(value: Any, name: str, where: str) -> str:
    """A text of an example; raises a UserError if it is empty or no text."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            f"{where}: {name!r} is {'empty' if value == '' else repr(value)}; give a text"
        )
    return whole(value, name, where).strip()


def whole(value: str, name: str, where: str) -> str:
    """A text of whole characters; JSON can hold half of one."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: character {error.start + 1} of {name!r} is half of a surrogate pair; write the whole character"
        ) from None
    return value


def table(content: str, delimiter: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a CSV file by the names in its first line, each with what errors call it."""
    csv.field_size_limit(LARGEST)
    quoting: Any = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, quoting=quoting)
    names: list[str] | None = None
    try:
        for row in reader:
            where = f"line {reader.line_num} of '{path}'"
            if names is None:
                names = [name.removeprefix("\ufeff").strip() for name in row]
                repeated = next((name for name in names if names.count(name) > 1), None)
                if repeated is not None:
                    raise UserError(
                        f"{where}: it names the column {repeated!r} twice; give each column a name of its own"
                    )
            elif row:
                if len(row) != len(names):
                    raise UserError(
                        f"{where}: it has {len(row)} fields, but the first line names {len(names)}; "
                        "quote texts that hold the separator"
                    )
                yield where, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise UserError(f"line {reader.line_num} of '{path}': {error}; correct it") from None


def objects(content: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with what errors call it."""
    for number, line in enumerate(content.split("\n"), start=1):
        where = f"line {number} of '{path}'"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0][:100]
            raise UserError(
                f"{where}: it is no JSON ({reason}); give one object a line, or a .csv or .tsv file"
            ) from None
        if not isinstance(row, dict):
            raise UserError(
                f'{where}: it is no object; give one, such as {{"text": ..., "label": ...}}'
            )
        yield where, row
