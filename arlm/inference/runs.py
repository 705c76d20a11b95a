"""Open a run: the network from its checkpoint, and its data module, prepared for reading."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, NamedTuple

import yaml

from arlm.checkpoints import Loaded, build, describe, find_class, load
from arlm.checkpoints.specs import OLDER
from arlm.core import Spec
from arlm.data.module import TokenDataModule
from arlm.data.text_files import read_text
from arlm.data.text_module import TextDataModule
from arlm.domains import Domain
from arlm.errors import UserError
from arlm.inference.configurations import data_classes, read_yaml, resolve, shipped
from arlm.tokenizers import Tokenizer

# Options of TextDataModule that are kept when other data is read, unless its file chooses them.
BATCHING = ("length", "batching", "stride", "streams", "overlap")


class Run(NamedTuple):
    """A loaded checkpoint and its data module."""

    loaded: Loaded
    data: TokenDataModule


def open_run(path: str, fragment: str | None = None, trusted: Sequence[str] = ()) -> Run:
    """Load a checkpoint and prepare its data.

    Args:
        path: a .ckpt file, or the folder of a run.
        fragment: a YAML file, or the name of one of `configs/data/`, to read instead of the run's own data, with
            the checkpoint's tokenizer; where the run corrupts a text, such as by masks, a file of text is corrupted
            in the same way. Its `length`, `batching`, `stride`, `streams` and `overlap` are those that
            the file writes, else the checkpoint's if it writes neither `length` nor `batching`.
        trusted: packages, modules and files that may be imported beside arlm's own.
    """
    loaded = load(path, trusted)
    description = {k: v for k, v in loaded.data.items() if k != "provenance"}
    if fragment is not None:
        description = _from_fragment(fragment, description, trusted)
    elif not description["class_path"]:
        raise UserError(
            f"--data: '{path}' was trained without a data module, so it names no data; give --data, a file like "
            "those of configs/data/"
        )
    with _mistakes_of(fragment):
        data: TokenDataModule = build(description, TokenDataModule, trusted=trusted)  # type: ignore[type-abstract]
    if fragment is not None:
        ours, theirs = type(loaded.domain).__name__, type(data.domain).__name__
        if ours != theirs:
            raise UserError(
                f"--data: '{fragment}' is for {theirs}, but '{path}' models {ours}; give other data"
            )
    is_image = len(loaded.net.spec.shape) > 1
    if is_image and data.spec != loaded.net.spec:
        raise UserError(
            f"data: its images are {data.spec}, but the network of '{path}' is for {loaded.net.spec}"
        )
    data.domain = loaded.domain
    longest, length = loaded.net.max_length, data.spec.length
    if longest is not None and length > longest:
        raise UserError(
            f"data.length: rows of {length} tokens do not fit '{path}', whose network takes at most {longest}; "
            "choose a smaller data.length"
        )
    data.prepare_data()
    provenance = loaded.data["provenance"]
    if fragment is None and data.provenance != provenance:
        note = f"note: the data differs from that of training, which was {shortened(provenance)}"
        print(note, file=sys.stderr)
    return Run(loaded, data)


def _from_fragment(
    fragment: str, description: dict[str, Any], trusted: Sequence[str]
) -> dict[str, Any]:
    """The description of other data, with the batching options of the network's own data."""
    other = _described(fragment, Path())
    init_args = other["init_args"]
    ours = description["init_args"]
    with _mistakes_of(fragment):
        kind = find_class(other, TokenDataModule, trusted=trusted)  # type: ignore[type-abstract]
    inner = ours["text"] if isinstance(ours.get("text"), dict) else None
    if issubclass(kind, TextDataModule):
        if inner is None:
            return other | {"init_args": _batched(init_args, ours)}
        # The run corrupts a text: the file names another text for it.
        text = other | {"init_args": _batched(init_args, inner.get("init_args", {}))}
        return description | {"init_args": ours | {"text": text}}
    own = init_args.get("text")
    if inner is not None and isinstance(own, dict):
        its_args = own.get("init_args") or {}
        if "class_path" not in own or not isinstance(its_args, dict):
            raise UserError(
                f"--data: '{fragment}' gives its text without a class_path or a mapping of init_args; "
                "write it like those of configs/data/"
            )
        text = own | {"init_args": _batched(its_args, inner.get("init_args", {}))}
        return other | {"init_args": init_args | {"text": text}}
    return other


def _batched(init_args: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a text with the batching options of the run's own text.

    Where the file chooses its rows, the run's stride and streams do not fit them.
    """
    kept = [] if {"length", "batching"} & init_args.keys() else BATCHING
    return {name: ours[name] for name in kept if name in ours} | init_args


def _described(fragment: str, folder: Path, inner: bool = False) -> dict[str, Any]:
    """Class path and arguments of the data in a YAML file; that of a text within it may be named by a file, too.

    Args:
        fragment: the file, relative to `folder`, or a shipped name.
        inner: whether another data module reads this one.
    """
    beside = folder / fragment
    file = beside if beside.is_file() else Path(resolve(fragment, "data"))
    if not file.is_file():
        near = get_close_matches(fragment, shipped("data"), n=1)
        mend = f"did you mean {near[0]!r}?" if near else "`arlm configs` lists the names"
        raise UserError(f"--data: '{fragment}' is neither a data file (YAML) nor a name; {mend}")
    try:
        content = read_yaml(read_text(file, "--data"))
    except UserError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # a ValueError for an impossible date
        reason = " ".join(str(error).split())
        raise UserError(f"--data: '{fragment}' is no valid YAML ({reason}); correct it") from None
    content = content if isinstance(content, dict) else {}
    init_args = content.get("init_args") or {}
    if "class_path" not in content or not isinstance(init_args, dict):
        raise UserError(f"--data: '{fragment}' names no class_path; give a file like configs/data/")
    name = content["class_path"]  # a class of arlm's by its name alone, as for `fit`
    known = data_classes()
    path = known.get(name, name) if isinstance(name, str) else name
    if isinstance(path, str) and "." not in path:
        near = get_close_matches(path, known, n=1)
        mend = f"did you mean {near[0]!r}?" if near else "write MODULE.CLASS"
        raise UserError(
            f"--data: '{fragment}' names the class {path!r}, which arlm does not have; {mend}"
        )
    text = init_args.get("text")
    if path in known.values() and isinstance(text, str) and not inner:
        init_args = init_args | {"text": _described(text, file.parent, inner=True)}
    return {"class_path": path, "init_args": init_args}


@contextmanager
def _mistakes_of(fragment: str | None) -> Iterator[None]:
    """Errors of a description name the file that it is from, if it is not the checkpoint's own."""
    try:
        yield
    except UserError as error:
        if fragment is None or not str(error).startswith("checkpoint: "):
            raise
        reason = str(error).removeprefix("checkpoint: ").replace(OLDER, "correct the file")
        raise UserError(f"--data: '{fragment}': {reason}") from None


def read_with_tokens_of(
    data: TokenDataModule, checkpoint: str, trusted: Sequence[str] = ()
) -> None:
    """Let a data module encode its text with the tokenizer of a checkpoint, whose network is trained further on it.

    A domain of another kind, such as pairs for a network of plain text, or with other options, such as another
    template, keeps its own tokens beyond the tokenizer's.
    Tokens of images are their intensities, so images keep their own domain, and `pretrained` compares them.

    Raises:
        UserError: the checkpoint models other kinds of objects, or other classes.
    """
    loaded = load(checkpoint, trusted)
    domain = loaded.domain
    ours, theirs = type(domain).__name__, type(data.domain).__name__
    others: dict[str, Any] = {}
    if ours == theirs:
        if len(data.spec.shape) > 1:
            return
        others = domain.differences(data.domain)
        if not others:
            data.domain = domain
            return
    tokenizer, described = domain.text_tokenizer, describe(data.domain)
    # The only objects among a domain's arguments are tokenizers.
    own = [name for name, value in described["init_args"].items() if isinstance(value, dict)]
    for name, (trained, given) in others.items():
        # The numbers of classes have a meaning, so a network of other classes would begin with a wrong one.
        if not own or name == "classes":
            raise UserError(
                f"data.{name}: it is {shortened(given)}, but '{checkpoint}' was trained with {shortened(trained)}; "
                "choose the same"
            )
    if tokenizer is None or not own:
        raise UserError(
            f"data: it is for {theirs}, but '{checkpoint}' models {ours}; choose other data"
        )
    replaced = dict.fromkeys(own, describe(tokenizer))
    if others:  # each tokenizer is that of the same name
        known = describe(domain)["init_args"]
        replaced = {n: known[n] for n in known if isinstance(known[n], dict) or n in own}
    described["init_args"] |= replaced
    data.domain = build(described, Domain, trusted=trusted)  # type: ignore[type-abstract]
    if all(has_added_tokens(spec, tokenizer) for spec in (loaded.net.spec, data.spec)):
        what = ", ".join(others) or f"{ours}, not {theirs}"
        print(
            f"note: '{checkpoint}' had other tokens after those of the tokenizer ({what}); the tokens of this data "
            "there begin with the weights of those of the same number",
            file=sys.stderr,
        )


def has_added_tokens(spec: Spec, tokenizer: Tokenizer) -> bool:
    """Whether rows or contexts have tokens after those of a tokenizer, such as masks, roles and ends."""
    parts = [part for part in (spec, spec.context) if part is not None]
    own = [part for part in parts if part.fingerprint == tokenizer.fingerprint]
    return any(part.vocab_size > tokenizer.vocab_size for part in own)
