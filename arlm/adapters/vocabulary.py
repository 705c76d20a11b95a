"""Fit the weights of a trained network to data with more or fewer tokens of the same tokenizer, or other lengths.

The rows of a vocabulary beyond the tokenizer's own (ends, separators, masks, roles) differ between data sets, and so
does the length of a table of learned positions.

References:
    | Initializing New Word Embeddings for Pretrained Language Models (Hewitt, 2021), the mean of the old rows
    | https://nlp.stanford.edu/~johnhew/vocab-expansion.html
    | Longformer: The Long-Document Transformer (Beltagy et al., 2020), positions repeated
    | https://arxiv.org/abs/2004.05150
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec
from arlm.errors import UserError

NOISE = 0.1  # of new rows, in standard deviations of the old ones


def check_tokens(ours: Spec, theirs: Spec, name: str) -> None:
    """Raise a UserError unless the network `name` and the data speak of the same tokens, context included."""
    for what, own, given in _pairs(ours, theirs):
        if _without_shape(own) != _without_shape(given):
            raise _other(what, own, given, name)


def check_same_tokenizer(ours: Spec, theirs: Spec, name: str) -> None:
    """Raise a UserError unless each token of the tokenizer means the same to network and data.

    The number of tokens may differ where both have the same tokenizer, whose tokens come first. What the tokens
    after them mean (masks, roles, delimiters) is not compared, but for the end: in data of another domain they begin
    with the rows of the network's added tokens of the same number.
    """
    for what, own, given in _pairs(ours, theirs):
        if _without_shape(own) == _without_shape(given):
            continue
        if own is None or given is None or own.fingerprint is None:
            raise _other(what, own, given, name)
        fields = ("fingerprint", "kind", "joint", "null_id")
        if any(getattr(own, field) != getattr(given, field) for field in fields):
            raise _other(what, own, given, name)
        added = given.eos_id is not None and given.eos_id >= own.vocab_size
        if given.eos_id not in (None, own.eos_id) and not (added and own.eos_id is None):
            raise UserError(
                f"model.net: '{name}' was trained with the end token {own.eos_id}, but that of the data is "
                f"{given.eos_id}; choose data with the same end token"
            )


def _pairs(ours: Spec, theirs: Spec) -> list[tuple[str, Spec | None, Spec | None]]:
    return [("tokens", ours, theirs), ("contexts", ours.context, theirs.context)]


def _other(what: str, own: Spec | None, given: Spec | None, name: str) -> UserError:
    return UserError(
        f"model.net: '{name}' was trained with other {what} than those of the data "
        f"({described_tokens(own)}, not {described_tokens(given)}); "
        "train both with the same tokenizer and labels"
    )


def described_tokens(spec: Spec | None) -> str:
    """Vocabulary and fingerprint, for messages."""
    if spec is None:
        return "none"
    tokenizer = f" of tokenizer {spec.fingerprint[:16]}" if spec.fingerprint else ""
    return f"{spec.vocab_size}{tokenizer}"


def _without_shape(spec: Spec | None) -> Spec | None:
    return spec and replace(spec, shape=(1,), context=None, unit="")


def fitted(trained: Autoregressor, net: Autoregressor) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a trained network in the shapes of another one, which is built for other data.

    New rows of a vocabulary, in embedding and head, are the mean of the old rows plus a little noise of a fixed
    seed. So a new token's logit is about the mean of the others', its probability is at most about 1 / V, and no
    old token's probability changes much. A longer table of positions repeats the old one; rows that the data
    does not have are cut. A bias of relative positions keeps its distances, and greater ones get that of the
    greatest that was trained.

    Args:
        trained, net: of one class, with equal options.

    Returns: a state dict for `net`, and a line for each change of a vocabulary.

    Raises:
        UserError: a shape differs in another way.
    """
    if hasattr(trained, "count") and trained.spec.vocab_size != net.spec.vocab_size:
        raise UserError(
            f"model.net: {type(trained).__name__} counts n-grams of {trained.spec.vocab_size} tokens, which have "
            f"no meaning among {net.spec.vocab_size}; fit it anew"
        )
    wanted, found = net.state_dict(), {}
    notes: dict[str, list[str]] = {}
    for name, weight in trained.state_dict().items():
        target = wanted.get(name)
        if target is None or not target.numel() or weight.ndim != target.ndim:
            found[name] = weight  # load_state_dict decides
            continue
        old, new = (_spec_of(part, name) for part in (trained, net))
        for axis, size in enumerate(target.shape):
            before = weight.shape[axis]
            if before == size or not weight.is_floating_point():
                continue
            if name.endswith("distance_bias"):  # its middle is distance 0
                distances = torch.arange(size) - size // 2 + before // 2
                weight = weight.index_select(axis, distances.clamp(0, before - 1))
            elif "position" not in name and (before, size) in _vocabularies(old, new):
                weight = _extended(weight, axis, size)
                change = f"{before} -> {size}"
                notes.setdefault(change, []).append(name)
            elif axis == 0 and len(new.shape) == 1 and _lengths(old) != _lengths(new):
                weight = weight.index_select(0, torch.arange(size) % before)
        found[name] = weight
    return found, [f"{change} rows in {', '.join(names)}" for change, names in notes.items()]


def _spec_of(net: Autoregressor, weight: str) -> Spec:
    """The spec of the innermost network that holds a weight."""
    spec, module = net.spec, net.get_submodule("")
    for part in weight.split(".")[:-1]:
        module = module.get_submodule(part)
        spec = module.spec if isinstance(module, Autoregressor) else spec
    return spec


def _vocabularies(old: Spec, new: Spec) -> set[tuple[int, int]]:
    """Sizes of a vocabulary, before and now."""
    pairs = {(old.vocab_size, new.vocab_size)}
    if old.context is not None and new.context is not None:
        pairs.add((old.context.vocab_size, new.context.vocab_size))
    return pairs


def _lengths(spec: Spec) -> tuple[int, int]:
    return spec.length, 0 if spec.context is None else spec.context.length


def _extended(weight: Tensor, axis: int, size: int) -> Tensor:
    """A weight with `size` rows along `axis`."""
    before = weight.shape[axis]
    if size <= before:
        return weight.narrow(axis, 0, size)
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    mean = exact.mean(axis, keepdim=True)
    spread = exact.std(axis, keepdim=True) if before > 1 else torch.zeros_like(mean)
    shape = [size - before if a == axis else n for a, n in enumerate(weight.shape)]
    # One seed for all: the two names of a tied weight get the same rows.
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = mean + NOISE * spread * noise.to(exact).clamp(-2, 2)
    return torch.cat([weight, rows.to(weight.dtype)], dim=axis)
