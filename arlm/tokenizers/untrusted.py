"""Tokenizers' JSON that somebody else wrote, checked before the `tokenizers` library reads it in this process.

    JSON text -> parsed in Python: size, nesting, ids without gaps
                   |                              |
                   | the form that arlm writes    | any other form
                   v                              v
             read in this process          tried in a process of its own: memory and time are limited
                                                  |
                                                  v
                                           read in this process

An id of 4e9 makes the library allocate a table of as many entries, which aborts the process; a malformed character map
makes it panic. Neither is an `Exception`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers

from arlm.errors import UserError

NODES = 20_000  # values in a tokenizer's JSON, beside its vocabulary, merges and added tokens
LONGEST = 10_000  # characters of a text among them
GROWTH = 64  # tokens, or characters, that one character may become
SECONDS = 20
MEMORY = 2**30  # bytes of address space of the trial, and 64 for each byte of JSON
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": bool,
    "trim_offsets": bool,
    "use_regex": bool,
}
OWN: dict[str, tuple[Any, ...]] = {
    "version": ("1.0",),
    "truncation": (None,),
    "padding": (None,),
    "normalizer": (None,),
    "pre_tokenizer": (BYTE_LEVEL,),
    "post_processor": (None, BYTE_LEVEL),
    "decoder": (BYTE_LEVEL,),
}
# What a tokenizer is tried on: every kind of character, long words, and much white space.
TRIAL = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most, limit = resource.getrlimit(resource.RLIMIT_AS)[1], int(sys.argv[2])
    limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
except (ImportError, ValueError, OSError):  # Windows, and macOS, which limits no address space
    pass
sys.path.append(sys.argv[1])
from tokenizers import Tokenizer
library = Tokenizer.from_str(sys.stdin.buffer.read().decode())
library.no_padding()
library.no_truncation()
characters = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x10000, 7), 0x1F600, 0x10FFFF]))
for text in ("", " ", "\\n" * 99, "a" * 2000, "the 1st; it's " * 99, "\\u0301\\u200d\\ufdfa" * 99, characters):
    ids = library.encode(text, add_special_tokens=False).ids
    if len(ids) > 100 + int(sys.argv[3]) * len(text):
        raise SystemExit("it makes a text longer")
    library.decode(ids)
"""

_tried: set[bytes] = set()  # SHA-256 of what passed in this process


def parsed(json_text: str) -> dict[str, Any]:
    """A tokenizer's JSON as Python values, after all checks; raises a UserError."""
    with refusals():
        parts = json.loads(json_text, object_pairs_hook=_object)
        content = json_text.encode()
        own = _check(parts)
    digest = hashlib.sha256(content).digest()
    if not own and digest not in _tried:
        _try(content)
    _tried.add(digest)
    return parts


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what a tokenizer's JSON raises, in Python or in the library, into a UserError."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise UserError(
            f"tokenizer: not a tokenizer's JSON ({error}); make one with tools/train_tokenizer.py"
        ) from None


def is_panic(error: BaseException) -> bool:
    """Whether an exception is the library's for an error of its own, which is no `Exception`."""
    return type(error).__name__ == "PanicException"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; with the same key twice, Python and the library could take different ones."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a key twice")
    return found


def _check(parts: Any) -> bool:
    """Check sizes and ids; returns whether the JSON has the form that arlm writes. Raises any Exception."""
    model = dict(parts["model"])
    vocabulary, merges = model.pop("vocab"), model.pop("merges", [])
    added = parts.get("added_tokens") or []
    named = isinstance(vocabulary, dict)
    known = dict(vocabulary) if named else {token: i for i, (token, _) in enumerate(vocabulary)}
    for token in added:
        content = token["content"]
        if not 0 < len(content) <= LONGEST:
            raise ValueError("an added token is empty or too long")
        if known.setdefault(content, token["id"]) != token["id"]:
            raise ValueError(f"its token {content[:40]!r} has two ids")
    ids = list(known.values())
    if set(map(type, ids)) != {int} or sorted(ids) != list(range(len(ids))):
        raise ValueError("the ids of its tokens are not 0, 1, 2, ... without gaps")
    if not isinstance(merges, list):
        raise TypeError("its merges are no list")
    rest = {name: part for name, part in parts.items() if name not in ("model", "added_tokens")}
    _walk([rest, model])
    plain = all(value in (None, False, "") for name, value in model.items() if name != "type")
    own = set(rest) == set(OWN) and all(_fits(rest[name], OWN[name]) for name in OWN)
    return own and plain and model.get("type") == "BPE" and named and not added


def _fits(part: Any, forms: tuple[Any, ...]) -> bool:
    """Whether a part is one of some values; of an object, its true and false may be either."""
    if not isinstance(part, dict):
        return part in [form for form in forms if not isinstance(form, dict)]
    names = {k: type(v) if type(v) is bool else v for k, v in part.items()}
    return names in forms


def _walk(root: Any) -> None:
    """Bound the number of values, the lengths of texts, and how much replacements make a text longer."""
    waiting, count, growth = [root], 0, 1
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            if value.get("type") == "Replace":
                growth *= max(1, len(value["content"]))
            if value.get("type") == "Precompiled":
                _check_characters(value.pop("precompiled_charsmap"))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        if count > NODES or (isinstance(value, str) and len(value) > LONGEST):
            raise ValueError("it is too large beside its vocabulary")
        if type(value) is int and abs(value) >= 2**31:
            raise ValueError(f"it holds the number {value}")
    if growth > GROWTH:
        raise ValueError("its replacements make a text much longer")


def _check_characters(text: str) -> None:
    """Check a map of characters: the size of a table, the table, and texts that each end with a zero."""
    content = base64.b64decode(text, validate=True)
    size = int.from_bytes(content[:4], "little")
    texts = content[4 + size :]
    if len(content) < 4 or size % 4 or 4 + size > len(content) or texts[-1:] not in (b"", b"\0"):
        raise ValueError("its map of characters is damaged")
    if max(map(len, texts.split(b"\0"))) > 4 * GROWTH:
        raise ValueError("its map of characters makes a text much longer")


def _try(content: bytes) -> None:
    """Let another process read the JSON and tokenize some text."""
    folder = str(Path(tokenizers.__file__).parents[1])
    limits = [str(MEMORY + 64 * len(content)), str(GROWTH)]
    quiet = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-I", "-c", TRIAL, folder, *limits]
    try:
        done = subprocess.run(
            command, input=content, capture_output=True, timeout=SECONDS, env=os.environ | quiet
        )
        lines = done.stderr.decode(errors="replace").splitlines() or ["it ends the process"]
        reason = lines[-1][:300] if done.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"it takes more than {SECONDS} s"
    if reason:
        raise UserError(
            f"tokenizer: not a tokenizer's JSON ({reason}); make one with tools/train_tokenizer.py"
        )
