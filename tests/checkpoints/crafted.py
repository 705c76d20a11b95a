"""Crafted and damaged checkpoints, by kind, made from two sound ones.

A kind yields (name, content): the content is the bytes of a file, a dictionary for `torch.save`, or a function
that makes something at a path. Unless the name says otherwise, the checksums are right: whoever crafts a
checkpoint can compute them.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from arlm.checkpoints.describe import FORMAT, checksums, entry_checksum
from arlm.tokenizers import BPETokenizer

Content = bytes | dict | Callable[[Path], object]
Cases = Iterator[tuple[str, Content]]


class Originals(NamedTuple):
    """What the crafted checkpoints are made from."""

    image: Path  # PixelCNN on Digits
    text: Path  # LSTM with a character tokenizer
    nested: Path  # that LSTM twice, in a network that holds networks
    canary: Path  # a file that a payload would create
    package: str  # a package that creates the canary when it is imported


@cache
def _contents(path: Path) -> dict[str, Any]:
    kept = "state_dict", "arlm", "effort", "global_step", "pytorch-lightning_version"
    contents = torch.load(path, weights_only=True)
    return {name: contents[name] for name in kept if name in contents}


def contents_of(path: Path) -> dict[str, Any]:
    """What a checkpoint contains, without the optimizer's state; the dictionaries are new ones."""
    contents = _contents(path)
    entries = {name: dict(contents[name]) for name in ("arlm", "state_dict")}
    return contents | entries


def signed(contents: dict[str, Any]) -> dict[str, Any]:
    """With the checksum of the description that it now has."""
    contents["arlm"]["checksum"] = entry_checksum(contents["arlm"])
    return contents


def saved(contents: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(contents, file, **options)
    return file.getvalue()


def with_entry(path: Path, **parts: Any) -> dict[str, Any]:
    """A checkpoint with other parts in its description: text as it is, anything else as JSON."""
    contents = contents_of(path)
    for name, part in parts.items():
        contents["arlm"][name] = part if isinstance(part, str) else json.dumps(part)
    return signed(contents)


def part(path: Path, name: str) -> dict[str, Any]:
    return json.loads(contents_of(path)["arlm"][name])


def with_weights(path: Path, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """A checkpoint with other weights, and right checksums where these can be computed."""
    contents = contents_of(path)
    contents["state_dict"] = change(contents["state_dict"])
    with suppress(Exception):
        contents["arlm"]["weights"] = json.dumps(checksums(contents["state_dict"]))
    return signed(contents)


def dangerous(o: Originals) -> list[tuple[str, dict[str, Any]]]:
    """Class paths with arguments that would create the canary, if they were called with them."""
    touch, file = f"touch '{o.canary}'", str(o.canary)
    inner = {"class_path": "os.system", "init_args": {"command": touch}}
    return [
        ("os.system", {"command": touch}),
        ("posix.system", {"command": touch}),
        ("os.popen", {"cmd": touch}),
        ("os.mkdir", {"path": file}),
        ("subprocess.run", {"args": ["touch", file]}),
        ("subprocess.Popen", {"args": ["touch", file]}),
        ("subprocess.check_output", {"args": ["touch", file]}),
        ("builtins.open", {"file": file, "mode": "w"}),
        ("builtins.eval", {"source": f"open({file!r}, 'w')"}),
        ("builtins.exec", {"source": f"open({file!r}, 'w')"}),
        ("builtins.__import__", {"name": o.package}),
        ("importlib.import_module", {"name": o.package}),
        ("io.FileIO", {"file": file, "mode": "w"}),
        ("logging.FileHandler", {"filename": file}),
        ("shutil.copy", {"src": str(o.image), "dst": file}),
        ("runpy.run_module", {"mod_name": o.package}),
        (f"{o.package}.Network", {}),
        (f"{o.package}.Pictures", {}),
        (f"{o.package}.Data", {}),
        ("arlm.checkpoints.classes.build", {"description": inner, "base": "object"}),
        ("arlm.checkpoints.classes.importlib.import_module", {"name": o.package}),
        ("arlm.checkpoints.load.load", {"path": str(o.image)}),
        ("arlm.cli.sample.main", {"arguments": [str(o.image), "--out", f"{file}.png"]}),
        ("arlm.__main__.entry", {}),
        ("arlm.reports.files.check_writable", {"path": file}),
        ("arlm.data.corpus.os.system", {"command": touch}),
        ("torch.load", {"f": str(o.image), "weights_only": False}),
        ("torch.hub.load", {"repo_or_dir": str(o.canary.parent), "model": "x", "source": "local"}),
        ("pickle.loads", {"data": "x"}),
    ]


PATHS = [  # class paths that are no class of the kind that is expected, whatever their arguments
    *(
        "torch.nn.Linear",
        "torch.nn.Module",
        "pathlib.Path",
        "pytorch_lightning.Trainer",
        "builtins.dict",
    ),
    *("pytorch_lightning.LightningDataModule", "this.s", "antigravity.webbrowser", "builtins.type"),
    *("arlm.core", "arlm.core.nn", "arlm.core.nn.Module", "arlm.core.Tensor", "arlm.core.Any"),
    *("arlm.core.Autoregressor", "arlm.core.Spec", "arlm.core.math", "arlm.core.token_log_prob"),
    *("arlm.data.module.DataLoader", "arlm.data.module.TokenDataModule", "arlm.data.module.Spec"),
    *("arlm.pixels.base.PixelNetwork", "arlm.models.rnn.RecurrentLanguageModel", "arlm.load"),
    *("arlm.layers.recurrent.StatefulAutoregressor", "arlm.models.pixelcnn.ResidualBlock"),
    *("arlm.models.pixelcnn.nn", "arlm.models.pixelcnn.Program", "arlm.models.pixelcnn.rearrange"),
    *(
        "arlm.domains.base.Domain",
        "arlm.domains.Domain",
        "arlm.domains.image",
        "arlm.Autoregressor",
    ),
    *("arlm.domains.ImageDomain", "arlm.models.pixelcnn.PixelNetwork", "arlm.errors.UserError"),
    *("arlm.tokenizers.base.Tokenizer", "arlm.tokenizers.byte.ByteTokenizer", "arlm.missing.Net"),
    *(
        "arlm.training.module.AutoregressiveModule",
        "datamodules.digits.images",
        "datamodules.digits",
    ),
    *("arlm.reports.view.View", "arlm.checkpoints.load.Loaded", "arlm.states.Prefix", "arlm"),
    *("", ".", "..", ".os.system", "os.", "arlm.", ".arlm.core", "arlm..core", "arlm.core..Spec"),
    *("arlm.models.pixelcnn.PixelCNN.", " arlm.models.pixelcnn.PixelCNN", "PixelCNN", "__main__.X"),
    *("arlm.models.pixelcnn.PixelCNN ", "arlm.models.pixelcnn.PixelCNN\n", "arlm/models/pixelcnn"),
    *("arlm.models.pixelcnn.PixelCNN.__init__", "arlm.models.pixelcnn.PixelCNN.__class__"),
    *(
        "arlm.models.pixelcnn.__class__",
        "arlm.models.pixelcnn.__builtins__",
        "arlm.core.__loader__",
    ),
    *("\N{CYRILLIC SMALL LETTER A}rlm.core.Autoregressor", "arlm.models.pixelcnn.Pixel\u200bCNN"),
    *(
        "\uff41rlm.models.pixelcnn.PixelCNN",
        "arlm\u2024models.pixelcnn.PixelCNN",
        "arlm\0.core.Spec",
    ),
    *("arlm.models.pixelcnn:PixelCNN", "arlm.core.Autoregressor()", "arlm.core.Spec;os.system"),
    *("../arlm.core", "arlm." + "a" * 10**5, "arlm" + ".a" * 3000, "\ud800.x", "a\x1b[2J.b\nc"),
]


def functions_and_foreign_classes(o: Originals) -> Cases:
    for name, init_args in dangerous(o):
        described = {"class_path": name, "init_args": init_args}
        yield f"domain {name}", with_entry(o.image, domain=described)
        yield f"network {name}", with_entry(o.image, network=described)
        yield f"tokenizer {name}", with_entry(o.text, domain=text_domain(described))


def text_domain(tokenizer: Any) -> dict[str, Any]:
    return {"class_path": "arlm.domains.text.TextDomain", "init_args": {"tokenizer": tokenizer}}


def wrong_class_paths(o: Originals) -> Cases:
    init_args = part(o.image, "network")["init_args"]
    for index, path in enumerate(PATHS):
        described = {"class_path": path, "init_args": init_args if index % 2 else {}}
        yield f"network {path[:40]!r}", with_entry(o.image, network=described)
        yield f"domain {path[:40]!r}", with_entry(o.image, domain=described)


def wrong_kinds(o: Originals) -> Cases:
    network, domain, data = (part(o.image, name) for name in ("network", "domain", "data"))
    tokenizer = part(o.text, "domain")["init_args"]["tokenizer"]
    things = {"network": network, "domain": domain, "data": data, "tokenizer": tokenizer}
    exported = domain | {"class_path": "arlm.domains.ImageDomain"}
    yield "a class where it is not defined", with_entry(o.image, domain=exported)
    for role in ("network", "domain"):
        for name, thing in things.items():
            if name != role:
                yield f"a {name} as {role}", with_entry(o.image, **{role: thing})
    for name in ("network", "domain", "data"):
        yield f"a {name} as tokenizer", with_entry(o.text, domain=text_domain(things[name]))
        nested = network | {"init_args": network["init_args"] | {"width": things[name]}}
        yield f"a {name} as width", with_entry(o.image, network=nested)
    for name, init_args in dangerous(o):
        inner = {"class_path": name, "init_args": init_args}
        for where in ("width", "extra"):
            nested = network | {"init_args": network["init_args"] | {where: inner}}
            yield f"{name} as {where}", with_entry(o.image, network=nested)


def wrong_types(o: Originals) -> Cases:
    values: list[Any] = [
        7,
        -1,
        2.5,
        True,
        None,
        [],
        ["x"],
        {},
        {"x": {"y": [1]}},
        b"x",
        ("a",),
        "x",
    ]
    values += [
        10**600,
        float("nan"),
        torch.zeros(2),
        torch.tensor(2),
        "",
        "null",
        "[]",
        "0",
        "{",
        '"x"',
    ]
    values += ["[" * 10**5, '{"a":' * 10**5, "9" * 10**4, '{"class_path": 1, "init_args": {}}']
    for name in ("network", "spec", "domain", "data", "weights"):
        for index, value in enumerate(values):
            contents = contents_of(o.image)
            contents["arlm"][name] = value
            with suppress(TypeError):  # no checksum of tensors
                signed(contents)
            yield f"{name} {index} {str(value)[:20]}", contents
    for name in ("arlm", "state_dict"):
        for index, value in enumerate(values):
            yield f"{name} {index}", contents_of(o.image) | {name: value}
    for index, value in enumerate(values):
        contents = contents_of(o.image)
        contents["arlm"]["config"] = value
        if not isinstance(value, str):
            yield f"config {index}", contents
        yield f"the whole {index}", saved(value)
    for name in ("class_path", "init_args"):
        for index, value in enumerate([7, None, [], {}, True, "x", {"x": 1}, ["arlm.core.Spec"]]):
            for role in ("network", "domain"):
                if name == "class_path" or not isinstance(value, dict):
                    changed = part(o.image, role) | {name: value}
                    yield f"{role}.{name} {index}", with_entry(o.image, **{role: changed})
    overriding = OrderedDict(contents_of(o.image))
    overriding.get = 5  # type: ignore[assignment]
    yield "an instance attribute hides get", saved(overriding)
    odd = contents_of(o.image)
    odd["arlm"] = OrderedDict(odd["arlm"])
    odd["arlm"].get = torch._utils._rebuild_tensor_v2
    yield "an instance attribute hides the entry's get", saved(odd)


def missing_keys(o: Originals) -> Cases:
    for name in ("arlm", "state_dict"):
        contents = contents_of(o.image)
        del contents[name]
        yield name, contents
    for name in contents_of(o.image)["arlm"]:
        contents = contents_of(o.image)
        del contents["arlm"][name]
        if name != "config":
            yield f"arlm.{name}", contents if name == "checksum" else signed(contents)
    for role, names in {
        "network": ("class_path", "init_args"),
        "domain": ("class_path", "init_args"),
        "data": ("class_path", "init_args", "provenance"),
        "spec": tuple(part(o.image, "spec")),
    }.items():
        for name in names:
            changed = part(o.image, role)
            del changed[name]
            yield f"{role}.{name}", with_entry(o.image, **{role: changed})


def wrong_arguments(o: Originals) -> Cases:
    odd: list[Any] = [
        "16",
        "x",
        -1,
        0,
        10**30,
        2**62,
        10**9,
        float("nan"),
        float("inf"),
        None,
        [],
        [4],
    ]
    odd += [4.0, True, [[[4]]], "\ud800", {"a": 1}]
    for name in ("width", "depth", "head_width", "unknown", "self", "spec", "__class__", "a b", ""):
        for value in odd:
            network = part(o.image, "network")
            network["init_args"][name] = value
            yield f"network.{name} {value!r}", with_entry(o.image, network=network)
    for name in ("levels", "height", "channels", "unknown"):
        for value in odd:
            domain = part(o.image, "domain")
            domain["init_args"][name] = value
            yield f"domain.{name} {value!r}", with_entry(o.image, domain=domain)
    for value in ["x", -0.1, 1, 10**30, float("nan"), None, True, []]:
        network = part(o.image, "network")
        network["init_args"]["dropout"] = value
        yield f"network.dropout {value!r}", with_entry(o.image, network=network)
    network = part(o.text, "network")
    for name, value in {"width": 10**6, "depth": 10**8, "embedding": 10**7, "tied": "yes"}.items():
        changed = network | {"init_args": network["init_args"] | {name: value}}
        yield f"text network.{name}", with_entry(o.text, network=changed)


def wrong_specs(o: Originals) -> Cases:
    sound = part(o.image, "spec")
    sizes: list[Any] = [
        0,
        -1,
        1.5,
        17.0,
        "17",
        None,
        True,
        [],
        [17],
        2**31,
        10**30,
        float("nan"),
        16,
    ]
    for value in sizes:
        yield f"vocab_size {value!r}", with_entry(o.image, spec=sound | {"vocab_size": value})
        yield f"shape of {value!r}", with_entry(o.image, spec=sound | {"shape": [value, 8, 1]})
    for shape in (
        [],
        [8],
        [64],
        [8, 8],
        [8, 8, 1, 1],
        [8, 8, 1, 1, 1],
        "8x8",
        None,
        64,
        [2**30] * 4,
    ):
        yield f"shape {shape}", with_entry(o.image, spec=sound | {"shape": shape})
    nested: Any = None
    for _ in range(300):
        nested = sound | {"context": nested}
    others: list[tuple[str, Any]] = [
        *(
            ("context", value)
            for value in (7, [], "x", True, {}, nested, sound, sound | {"extra": 1})
        ),
        *(("unit", value) for value in (7, None, [], {})),
        *(("joint", value) for value in (7, None, "yes")),
        *(("kind", value) for value in (7, None, "row", ["label"])),
        *(("null_id", value) for value in (-1, 0, True, 17, "x")),
        *(("fingerprint", value) for value in (7, [], {}, "0" * 64)),
        *(
            (name, value)
            for name in ("pad_id", "eos_id")
            for value in (-1, True, 17, 10**30, "x", 0.5)
        ),
        ("extra", 1),
    ]
    for name, value in others:
        yield f"{name} {str(value)[:30]}", with_entry(o.image, spec=sound | {name: value})
    text = part(o.text, "spec")
    for shape in ([16, 1], [4, 4], [2**30] * 3):
        yield f"text shape {shape}", with_entry(o.text, spec=text | {"shape": shape})


def wrong_tokenizers(o: Originals) -> Cases:
    character, bpe = (
        "arlm.tokenizers.character.CharacterTokenizer",
        "arlm.tokenizers.bpe.BPETokenizer",
    )
    word = "arlm.tokenizers.word.WordTokenizer"
    sound = BPETokenizer.train(["the quick brown fox"], 257).json_text
    parts = json.loads(sound)
    no_model = json.dumps(parts | {"model": {"type": "BPE"}})
    for index, text in enumerate(
        [
            *(
                "",
                "x",
                "{}",
                "[]",
                "null",
                "{",
                sound[:-5],
                sound[: len(sound) // 2],
                sound + "}",
                no_model,
            ),
            *(
                '{"a":' * 10**5,
                "[" * 10**6,
                "1" * 10**6,
                '{"version": "' + "x\n" * 10**5,
                "\0",
                "\ud800",
            ),
            *(json.dumps(parts | {"version": value}) for value in ("9", 1, None)),
            *(json.dumps(parts | {"model": value}) for value in (None, [], {"type": "os.system"})),
            json.dumps(
                parts | {"model": parts["model"] | {"vocab": {"a": 4 * 10**9}, "merges": []}}
            ),
            json.dumps(parts | {"model": parts["model"] | {"vocab": {"a": 10**30}, "merges": []}}),
            json.dumps(parts | {"model": parts["model"] | {"merges": [["a", "zz"]]}}),
            json.dumps({k: v for k, v in parts.items() if k != "pre_tokenizer"}),
            sound,  # sound, but of more tokens than the network has
        ]
    ):
        described = {"class_path": bpe, "init_args": {"json_text": text}}
        yield f"bpe {index}", with_entry(o.text, domain=text_domain(described))
    for value in (None, 5, True, [1], [[]], {"a": 1}, "\ud800", "", "ab", "a" * 10**6):
        for path, name in ((character, "alphabet"), (word, "words"), (bpe, "json_text")):
            described = {"class_path": path, "init_args": {name: value}}
            shown = repr(value)[:20]
            yield f"{name} {shown}", with_entry(o.text, domain=text_domain(described))
    for value in (None, 7, "byte", [], {}, {"class_path": character}):
        yield f"tokenizer {value!r}", with_entry(o.text, domain=text_domain(value))
    deep: Any = "ab"
    for _ in range(200):
        deep = {"class_path": character, "init_args": {"alphabet": deep}}
    yield "tokenizers within tokenizers", with_entry(o.text, domain=text_domain(deep))


def wrong_formats(o: Originals) -> Cases:
    own = FORMAT
    values: list[Any] = [0, 1, own - 1, own + 1, 99, -own, None, True, 10**600, "3" * 10**6]
    values += [str(own), float(own), [own], {str(own): own}]
    for index, value in enumerate([*values, torch.tensor(own), torch.tensor([own, own])]):
        contents = contents_of(o.image)
        contents["arlm"]["format"] = value
        with suppress(TypeError, ValueError):
            signed(contents)
        yield f"{index} {type(value).__name__}", contents
    members = members_of(o.image)
    data = next(name for name in members if name.endswith("data.pkl"))
    for depth in (10, 10**3, 10**5):  # lists within lists, written by hand
        nested = b"]" * depth + b"a" * (depth - 1)
        content = b"\x80\x02}X\x04\0\0\0arlm}X\x06\0\0\0format" + nested + b"ss."
        yield f"{depth} lists", archive(members | {data: content})


def wrong_weights(o: Originals) -> Cases:
    name = "net.first.weight"

    def replaced(value: Any) -> dict[str, Any]:
        return with_weights(o.image, lambda state: state | {name: value})

    weight = contents_of(o.image)["state_dict"][name]
    yield "missing", with_weights(o.image, lambda s: {k: v for k, v in s.items() if k != name})
    yield "all missing", with_weights(o.image, lambda state: {})
    yield "extra", with_weights(o.image, lambda state: state | {"net.extra": weight})
    yield (
        "renamed",
        with_weights(o.image, lambda s: {k.replace("first", "one"): v for k, v in s.items()}),
    )
    yield "no prefix", with_weights(o.image, lambda s: {k[4:]: v for k, v in s.items()})
    yield (
        "a long name",
        with_weights(o.image, lambda state: state | {"net.\x1b[2J\n" + "x" * 10**6: weight}),
    )
    for index, shape in enumerate(
        [weight.flatten(), weight[:, :, :, :-1], weight[None], weight[:0]]
    ):
        yield f"shape {index}", replaced(shape.clone())
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.complex64):
        yield f"dtype {dtype}", replaced(weight.to(dtype))
    for index, value in enumerate(
        [None, 1, 1.0, "x", [1.0], {}, weight.tolist(), b"x", torch.float32]
    ):
        yield f"no tensor {index}", replaced(value)
    yield "sparse", replaced(weight.to_sparse())
    yield "meta", replaced(weight.to("meta"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch is to drop them
        quantized = torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)
    yield "quantized", replaced(quantized)
    yield "one number as many", replaced(torch.zeros(1).expand(10**6, 10**6))
    yield "one number as the weight", replaced(torch.zeros(1).expand(weight.shape))
    yield "nan", replaced(weight * float("nan"))
    yield "inf", replaced(torch.full_like(weight, float("inf")))
    yield "too large for float32", replaced(weight.double() * 1e300 + 1e300)
    yield "keys are numbers", with_weights(o.image, lambda state: state | {5: weight})
    sums = part(o.image, "weights")
    first, second, *_ = sums
    for label, changed in {
        "missing": {k: v for k, v in sums.items() if k != first},
        "none": {},
        "extra": sums | {"extra": sums[first]},
        "swapped": sums | {first: sums[second], second: sums[first]},
        "null": sums | {first: None},
        "empty": sums | {first: ""},
        "upper case": sums | {first: sums[first].upper()},
        "number": sums | {first: 5},
    }.items():
        yield f"checksums {label}", with_entry(o.image, weights=changed)


def not_signed(o: Originals) -> Cases:
    for name in ("network", "spec", "domain", "data", "weights", "config", "run", "checksum"):
        contents = contents_of(o.image)
        contents["arlm"][name] += " "
        yield name, contents
    yield "one more", contents_of(o.image) | {"arlm": contents_of(o.image)["arlm"] | {"more": "x"}}
    changed = contents_of(o.image)
    changed["state_dict"]["net.first.bias"] = changed["state_dict"]["net.first.bias"] + 1
    yield "a weight", changed


def flipped_bits(o: Originals) -> Cases:
    """One bit of a weight, at seeded offsets of the weights' bytes in the file."""
    noise = np.random.default_rng(0)
    content, state = o.image.read_bytes(), contents_of(o.image)["state_dict"]
    offsets = []
    for weight in state.values():
        plain = weight.numpy().tobytes()
        assert content.count(plain) == 1
        offsets += range(content.index(plain), content.index(plain) + len(plain))
    for offset in noise.choice(offsets, 60, replace=False):
        damaged = bytearray(content)
        damaged[offset] ^= 1 << int(noise.integers(8))
        yield f"byte {offset}", bytes(damaged)


def truncated(o: Originals) -> Cases:
    content = o.image.read_bytes()
    lengths = [0, 1, 2, 3, 4, 30, 64, 100, 1000, *range(2000, len(content), 2500)]
    for length in [*lengths, *(len(content) - cut for cut in (1, 2, 22, 100, 500))]:
        yield f"{length} bytes", content[:length]
    yield "the middle cut out", content[:5000] + content[9000:]
    yield "the start cut out", content[100:]


class Payload:
    """A pickle of it calls os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return file.getvalue()


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as found:
        return {name: found.read(name) for name in found.namelist()}


def no_checkpoints(o: Originals) -> Cases:
    noise, payload = np.random.default_rng(1), Payload(f"touch '{o.canary}'")
    yield "empty", b""
    for size in (1, 100, 10**5):
        yield f"{size} random bytes", noise.bytes(size)
        yield f"{size} random bytes behind a zip's first", b"PK\x03\x04" + noise.bytes(size)
    yield "text", b"hello\nworld\n"
    yield "a directory", Path.mkdir
    yield "a directory of directories", lambda path: (path / "best.ckpt").mkdir(parents=True)
    yield "a broken link", lambda path: path.symlink_to("nowhere")
    yield "a pipe", lambda path: os.mkfifo(path)
    yield "a pickle that executes", pickle.dumps(payload)
    for protocol in (0, 2, 4):
        yield f"executes, protocol {protocol}", pickle.dumps({"arlm": payload}, protocol=protocol)
    yield "torch file that executes", saved(payload)
    yield "torch file that executes, legacy", saved(payload, _use_new_zipfile_serialization=False)
    for key in ("arlm", "state_dict", "effort", "callbacks", "more"):
        yield f"executes in {key}", saved(contents_of(o.image) | {key: payload})
    whole = contents_of(o.image)
    yield "legacy", saved(whole, _use_new_zipfile_serialization=False)
    yield "zip of nothing", archive({})
    yield "zip of text", archive({"hello.txt": b"hello"})
    members = members_of(o.image)
    data = next(name for name in members if name.endswith("data.pkl"))
    yield "zip without data.pkl", archive({k: v for k, v in members.items() if k != data})
    yield "zip with another data.pkl", archive(members | {data: pickle.dumps(payload)})
    yield "zip with a broken data.pkl", archive(members | {data: members[data][:-50]})
    # TorchScript's archives are recognised by this member
    yield "zip with code", archive(members | {data.replace("data.pkl", "constants.pkl"): b"x"})
    weights = next(name for name in members if name.endswith("data/0"))
    yield "zip with a short weight", archive(members | {weights: members[weights][:-8]})
    yield "zip without a weight", archive({k: v for k, v in members.items() if k != weights})
    yield "zip outside its folder", archive({f"../../{k}": v for k, v in members.items()})


def wrong_networks_in_networks(o: Originals) -> Cases:
    """Descriptions of the networks that the arguments of a network are factories of."""
    network = part(o.nested, "network")
    child = network["init_args"]["nets"][0]

    def holding(nets: Any, **changed: Any) -> dict[str, Any]:
        init_args = network["init_args"] | {"nets": nets} | changed
        return with_entry(o.nested, network=network | {"init_args": init_args})

    def changed(**parts: Any) -> dict[str, Any]:
        return holding([child, child | parts])

    for name, init_args in dangerous(o):
        yield name, changed(class_path=name, init_args=init_args)
    for path in PATHS:
        yield repr(path[:40]), changed(class_path=path)
    factory = {"checkpoint": str(o.text)}
    yield "a function", changed(class_path="arlm.adapters.pretrained", init_args=factory)
    yield (
        "a function where it is",
        changed(class_path="arlm.adapters.pretrained.pretrained", init_args=factory),
    )
    for role in ("domain", "data"):
        yield f"a {role}", holding([child, part(o.text, role) | {"spec": child["spec"]}])
    for name in ("class_path", "init_args", "spec"):
        yield f"no {name}", holding([child, {k: v for k, v in child.items() if k != name}])
    spec = child["spec"]
    for name, value in {
        "vocab_size": spec["vocab_size"] + 1,
        "shape": [spec["shape"][0] + 1],
        "fingerprint": "0" * 16,
        "eos_id": 0,
        "unit": "dim",
        "context": part(o.image, "spec") | {"kind": "label"},
        "joint": True,
    }.items():
        yield f"another {name}", changed(spec=spec | {name: value})
    for value in (None, 5, "x", [], {}, spec | {"more": 1}, spec | {"shape": "x"}):
        yield f"spec {str(value)[:30]}", changed(spec=value)
    for value in (None, 5, "x", [], [[]], {}, True, 0.5, [child, None], [child, 5], [child, "x"]):
        yield f"nets {str(value)[:30]}", holding(value)
    for value in ([[child, child]], {"0": child, "1": child}, child, [child] * 3, [child]):
        yield f"nets as {type(value).__name__} of {len(value)}", holding(value)
    for name, values in {
        "weights": (None, 1, "x", [], [1], [1, "x"], [1, None], [1, True], [1, [1]], [0, 0]),
        "contexts": ("given", ["given"], ["given", 5], ["given", "x"], ["given", "null"], [[], []]),
        "indices": (0, [0], [0, 2], [0, -1], [0, 0.5], [0, True], [1, 1], [child, child]),
        "base": (child,),
    }.items():
        for value in values:
            yield f"{name} {str(value)[:30]}", holding([child, child], **{name: value})
    for value in (float("nan"), float("inf"), 10**400):
        yield f"weight {str(value)[:10]}", holding([child, child], weights=[1, value])
    for name, value in {"width": 10**6, "depth": 10**8, "tied": "yes", "more": 1}.items():
        yield f"a network's {name}", changed(init_args=child["init_args"] | {name: value})
    yield "a network as width", changed(init_args=child["init_args"] | {"width": child})
    yield "many", holding([child] * 10**4, weights=[1.0] * 10**4, contexts=None, indices=None)
    text = json.dumps(network | {"spec": spec})
    start, end = text.split(json.dumps(child), 1)
    for depth in (17, 100, 10**4):  # networks within networks
        deep = start * depth + json.dumps(child) + end * depth
        yield f"{depth} within one another", with_entry(o.nested, network=deep)


KINDS = {
    kind.__name__: kind
    for kind in (
        functions_and_foreign_classes,
        wrong_class_paths,
        wrong_kinds,
        wrong_types,
        missing_keys,
        wrong_arguments,
        wrong_specs,
        wrong_tokenizers,
        wrong_formats,
        wrong_weights,
        wrong_networks_in_networks,
        not_signed,
        flipped_bits,
        truncated,
        no_checkpoints,
    )
}


def wrong_data(o: Originals) -> Cases:
    """Descriptions of data sets, which `load` does not build but `evaluate` and `compare` do."""
    data = part(o.image, "data")
    for name, init_args in dangerous(o):
        yield name, with_entry(o.image, data=data | {"class_path": name, "init_args": init_args})
    for path in PATHS:
        yield (
            repr(path[:40]),
            with_entry(o.image, data=data | {"class_path": path, "init_args": {}}),
        )
    for name, values in {
        "batch_size": ("x", 0, -1, 2.5, None, True, 10**30 * 0.5, [], {"class_path": "os.system"}),
        "num_workers": ("x", -1, 10**6, None),
        "seed": ("x", None, 0.5),
        "more": (1,),
    }.items():
        for value in values:
            init_args = data["init_args"] | {name: value}
            changed = data | {"init_args": init_args}
            yield f"{name} {value!r}", with_entry(o.image, data=changed)
    text = part(o.text, "data")
    for name, values in {
        "path": (5, [], "", "nowhere", [5], "\ud800"),
        "batching": (1, "x", None),
    }.items():
        for value in values:
            changed = text | {"init_args": text["init_args"] | {name: value}}
            yield f"{name} {value!r}", with_entry(o.text, data=changed)
    mnist = {"class_path": "datamodules.mnist.MNIST", "provenance": {}}
    for variant in ("wrap_dataset_for_transforms_v2", "CIFAR10", "../..", "os", 5):
        init_args = {"variant": variant, "data_dir": str(o.canary)}
        yield f"variant {variant}", with_entry(o.image, data=mnist | {"init_args": init_args})


def write(content: Content, path: Path) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        torch.save(copy.copy(content), path)
    else:
        content(path)
    return path
