"""Specs in checkpoints: to plain values and back, and compared with the domain."""

from __future__ import annotations

from dataclasses import asdict, replace
from reprlib import repr as shortened
from typing import Any, get_args

from arlm.core import ContextKind, Spec
from arlm.domains import Domain
from arlm.errors import UserError

OLDER = "use the version of arlm that wrote it"
DAMAGED = "use another file, such as last.ckpt of the same run"


def plain_spec(spec: Spec) -> dict[str, Any]:
    """A spec in its JSON form."""
    context = None if spec.context is None else plain_spec(spec.context)
    return asdict(spec) | {"shape": list(spec.shape), "context": context}


def check_spec(spec: Spec, domain: Domain) -> None:
    """Raise a UserError if the network's tokens are not those of the domain."""
    own = getattr(domain, "spec", None)  # of images; a function of the length for other domains
    own = own(spec.length) if callable(own) else own
    fits = spec.vocab_size == domain.vocab_size
    if isinstance(own, Spec):
        fits = fits and repr(own.shape) == repr(spec.shape)  # 8.0 == 8, but is no size
        fits = fits and own.fingerprint == spec.fingerprint
        fits = fits and (own.context is None or _unsized(own.context) == _unsized(spec.context))
    if not fits:
        raise UserError(
            f"checkpoint: the tokens of its network are not those of its {type(domain).__name__}; {OLDER}"
        )


def _unsized(context: Spec | None) -> Spec | None:
    """The spec of a context, without the length of a text, which need not be that of its row."""
    if context is None or context.kind != "sequence" or len(context.shape) > 1:
        return context
    return replace(context, shape=(1,))


def spec_from(plain: Any, is_context: bool = False) -> Spec:
    """A spec from its JSON form."""
    kinds: dict[str, tuple[type, ...]] = {
        "vocab_size": (int,),
        "shape": (list,),
        "pad_id": (int, type(None)),
        "eos_id": (int, type(None)),
        "context": (dict, type(None)),
        "unit": (str,),
        "joint": (bool,),
        "kind": (str,),
        "null_id": (int, type(None)),
        "fingerprint": (str, type(None)),
    }
    valid = isinstance(plain, dict) and set(plain) == set(kinds)
    valid = valid and all(isinstance(plain[name], kinds[name]) for name in kinds)
    sizes = [plain["vocab_size"], *plain["shape"]] if valid else [0]
    valid = valid and all(type(size) is int and 1 <= size < 2**31 for size in sizes)
    special = [plain[name] for name in ("pad_id", "eos_id", "null_id")] if valid else []
    valid = valid and all(i is None or (type(i) is int and 0 <= i < sizes[0]) for i in special)
    valid = valid and plain["kind"] in get_args(ContextKind)
    valid = valid and plain["null_id"] in (None, sizes[0] - 1)
    if not valid or len(sizes) > 4 or (is_context and plain["context"] is not None):
        raise UserError(f"checkpoint: its spec is invalid: {shortened(plain)}; {OLDER}")
    context = None if plain["context"] is None else spec_from(plain["context"], True)
    return Spec(**plain | {"shape": tuple(plain["shape"]), "context": context})
