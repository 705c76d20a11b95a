"""Training and decoding speed of translators against peers, in one interleaved run.

python -m tools.bench.translation training PEER_FOLDER --data-dir DATA
python -m tools.bench.translation decoding PEER_FOLDER

`training`: target tokens per second (end tokens included, padding not) on Multi30k by words (lower case,
words that occur at least twice), against bentrevett/pytorch-seq2seq's legacy notebooks 4 (packed GRU with
additive attention, 256 / 512) and 6 (transformer, 3 + 3 layers of 256). The notebooks' classes are run
unchanged, in their batches of 128 sorted by source; ours have the same sizes. `decoding`: sentences per
second of beam search, 100 sentences of 14 words in one batch, every row forced to 14 steps, against
JoeyNMT's transformer of the same size.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arlm.core import Autoregressor, Spec
from arlm.data.dataset import Rows
from arlm.data.pairs import Pairs
from arlm.domains import TranslationDomain
from arlm.inference.scorer import BatchScorer
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.sampling import beam_search
from arlm.training.objectives.smoothing import smoothed_score
from datamodules.multi30k import Multi30k
from tools.bench.step import training_step
from tools.bench.timing import Action, in_processes, in_turn, machine, median

ROWS = 128  # rows in the tutorial's batches
TRAINING = {
    "tutorial, attention": "attention",
    "arlm, general, float32": "attention",
    "arlm, general, bf16": "attention",
    "arlm, input feeding, bf16": "attention",
    "arlm, additive, bf16": "attention",
    "tutorial, transformer": "transformer",
    "arlm, transformer, float32": "transformer",
    "arlm, transformer, bf16": "transformer",
}
SOURCE_WORDS, TARGET_WORDS, LENGTH, SENTENCES = 7853, 5893, 14, 100


def notebook(folder: Path, number: int) -> SimpleNamespace:
    """The classes of one of the tutorial's legacy notebooks."""
    (path,) = (folder / "legacy").glob(f"{number} - *.ipynb")
    cells = json.loads(path.read_text())["cells"]
    scope: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "random": random}
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and source.startswith("class "):
            exec(source, scope)
    return SimpleNamespace(**scope)


def by_source(pairs: Pairs, domain: TranslationDomain) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The tutorial's batches, sorted by source in pools of 100: source (S, B), lengths (B,), target (T, B)."""
    order = torch.randperm(len(pairs))
    source_end, start = (
        domain.pad_id,
        domain.vocab_size,
    )  # the tutorial's <sos>, an additional token
    for pool in order.split(100 * ROWS):
        batches = pool[pairs.lengths[pool, 0].argsort(descending=True)].split(ROWS)
        for turn in torch.randperm(len(batches)).tolist():
            batch = pairs[Rows(0, batches[turn])]
            begin = torch.full((len(batch.tokens), 1), start)
            filled = batch.tokens.where(
                batch.scored, start + 1
            )  # the tutorial's <pad>, another one
            target = torch.cat([begin, filled], 1)
            assert batch.context is not None
            lengths = (batch.context != source_end).sum(1)
            yield batch.context.T.contiguous(), lengths, target.T.contiguous()


def tutorial(options: argparse.Namespace, kind: str, data: Multi30k) -> Action:
    """Training steps of the tutorial."""
    domain, device = data.domain, torch.device("cpu")
    source_words, target_words, pad = (
        domain.pad_id + 1,
        domain.vocab_size + 2,
        domain.vocab_size + 1,
    )
    if kind == "attention":
        classes = notebook(options.folder, 4)
        encoder = classes.Encoder(source_words, 256, 512, 512, 0.5)
        decoder = classes.Decoder(target_words, 256, 512, 512, 0.5, classes.Attention(512, 512))
        net = classes.Seq2Seq(encoder, decoder, domain.pad_id, device)
    else:
        classes = notebook(options.folder, 6)
        encoder = classes.Encoder(source_words, 256, 3, 8, 512, 0.1, device)
        decoder = classes.Decoder(target_words, 256, 3, 8, 512, 0.1, device)
        net = classes.Seq2Seq(encoder, decoder, domain.pad_id, pad, device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3 if kind == "attention" else 5e-4)
    criterion = nn.CrossEntropyLoss(ignore_index=pad)
    pairs: Any = data.dataset("train")
    batches = cycle(list(by_source(pairs, domain)))

    def step() -> int:
        source, lengths, target = next(batches)
        optimizer.zero_grad()
        if kind == "attention":
            output = net(source, lengths, target)[1:]
            loss = criterion(output.flatten(0, 1), target[1:].flatten())
        else:
            output, _ = net(source.T, target[:-1].T)
            loss = criterion(output.flatten(0, 1), target[1:].T.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1)
        optimizer.step()
        return int((target[1:] != pad).sum())

    return step


def ours(name: str, data: Multi30k) -> Action:
    """Training steps of arlm, label smoothing included."""
    _, kind, precision = name.split(", ")
    net: Autoregressor
    if kind == "transformer":
        net = TransformerSeq2Seq(
            data.spec, 256, 3, 8, 512, "relu", False, "learned", 0.1, 0.1, tied=False
        )
    else:
        attention: Any = "additive" if kind == "additive" else "general"
        feeding = kind == "input feeding"
        net = LSTMSeq2Seq(
            *(data.spec, attention, 512, 1, 256, 512), feeding=feeding, dropout=0.5, tied=False
        )
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    batches = cycle([data.dataset("train")[rows] for rows in data.order("train")])
    return training_step(
        BatchScorer(net, score=smoothed_score(net, 0.1)),
        batches,
        optimizer,
        precision == "bf16",
        1.0,
    )


def words(options: argparse.Namespace) -> Multi30k:
    """Multi30k by words."""
    return Multi30k(
        data_dir=options.data_dir, tokenizer="word", joint=False, lowercase=True, batch_tokens=2048
    )


def spec() -> Spec:
    """Spec of the sentences that are decoded."""
    context = Spec(SOURCE_WORDS, (64,), pad_id=SOURCE_WORDS - 1)
    return Spec(TARGET_WORDS, (64,), eos_id=TARGET_WORDS - 1, context=context)


def joeynmt(options: argparse.Namespace, beam: int) -> Action:
    """JoeyNMT's search on its own transformer with random weights."""
    sys.path.insert(0, str(options.folder))
    model, vocabulary, search = (
        importlib.import_module(f"joeynmt.{name}") for name in ("model", "vocabulary", "search")
    )
    special = SimpleNamespace(
        **{f"{name}_token": f"<{name}>" for name in ("unk", "pad")},
        **{"bos_token": "<s>", "eos_token": "</s>", "sep_token": None, "lang_tags": []},
        **{"unk_id": 0, "pad_id": 1, "bos_id": 2, "eos_id": 3, "sep_id": None},
    )
    vocabularies = [
        vocabulary.Vocabulary([f"w{i}" for i in range(size - 4)], special)
        for size in (SOURCE_WORDS, TARGET_WORDS)
    ]
    part = {
        "type": "transformer",
        "num_layers": 3,
        "num_heads": 8,
        "embeddings": {"embedding_dim": 256, "scale": True},
        "hidden_size": 256,
        "ff_size": 512,
        "layer_norm": "pre",
    }
    config = {"encoder": dict(part), "decoder": dict(part), "initializer": "xavier_uniform"}
    net = model.build_model(config, *vocabularies).eval()
    source = torch.randint(4, SOURCE_WORDS, (SENTENCES, LENGTH))
    batch = SimpleNamespace(
        src=source,
        src_mask=torch.ones(SENTENCES, 1, LENGTH, dtype=torch.bool),
        src_length=torch.full((SENTENCES,), LENGTH),
    )

    def run() -> int:
        with torch.inference_mode():
            encoded, hidden, _, _ = net(return_type="encode", **vars(batch))
            given = {"encoder_output": encoded, "encoder_hidden": hidden}
            given |= {"src_mask": batch.src_mask, "max_output_length": LENGTH, "model": net}
            if beam == 1:
                search.greedy(**given, min_output_length=LENGTH)
            else:
                search.beam_search(**given, beam_size=beam, alpha=1.0, min_output_length=LENGTH)
        return SENTENCES

    return run


def decode(name: str, beam: int) -> Action:
    """Beam search of arlm; the end token is suppressed, so that every row takes all steps."""
    net: Any
    if "transformer" in name:
        net = TransformerSeq2Seq(spec(), 256, 3, 8, 512, tied=False)
    else:
        net = LSTMSeq2Seq(spec(), "general", 512, 1, 256, tied=False)
    with torch.no_grad():
        net.head.bias[TARGET_WORDS - 1] = -1e9
    context = torch.randint(SOURCE_WORDS - 1, (SENTENCES, LENGTH))

    def run() -> int:
        found = beam_search(net, SENTENCES, LENGTH, beam=beam, context=context)
        assert not (found.tokens == TARGET_WORDS - 1).any()
        return SENTENCES

    return run


def build(options: argparse.Namespace, name: str) -> Action:
    """The action to time for a name."""
    if options.what == "training":
        kind = TRAINING[name]
        data = words(options)
        return tutorial(options, kind, data) if name.startswith("tutorial") else ours(name, data)
    beam = int(name.rpartition(" ")[2])
    return joeynmt(options, beam) if name.startswith("JoeyNMT") else decode(name, beam)


def main() -> None:
    """Measure and print the speeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("what", choices=["training", "decoding"])
    parser.add_argument("folder", type=Path, help="checkout of the peer")
    parser.add_argument("--data-dir", help="folder that contains multi30k (default $ARLM_DATA_DIR)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="omit the networks in bf16")
    options = parser.parse_args()
    print(machine())
    peers: dict[str, str] = {}
    if options.what == "training":
        names = [n for n in TRAINING if not (options.quick and "bf16" in n)]
        peers = {n: next(k for k, v in TRAINING.items() if v == TRAINING[n]) for n in names}
        unit = "target tokens/s"
    else:
        names = [
            f"{n}, beam {b}"
            for b in (5, 1)
            for n in ("JoeyNMT transformer", "arlm transformer", "arlm LSTM")
        ]
        peers = {n: f"JoeyNMT transformer, beam {n.rpartition(' ')[2]}" for n in names}
        unit = "sentences/s"
    runs = in_processes(build, options, names)
    timed = in_turn(runs, 2, options.repeats)
    speed = {n: 1 / median(seconds) for n, seconds in timed.items()}
    for name in names:
        times = speed[name] / speed[peers[name]]
        print(f"{name:32} {speed[name]:8.1f} {unit}, {times:.2f} times the peer")


if __name__ == "__main__":
    main()
