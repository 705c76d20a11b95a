"""The rows of the table: options of `arlm fit` for each, by name."""

from __future__ import annotations

from typing import Any

WIDTH = 128
EMBEDDING = {
    "lstm": {"width": 2 * WIDTH, "embedding": WIDTH, "depth": 1},
    "transformer": {"width": WIDTH, "depth": 4, "heads": 4},
}
KINDS = {
    "lstm": "arlm.models.rnn.LSTMLanguageModel",
    "transformer": "arlm.models.transformer.TransformerLanguageModel",
}
POOLING = {"lstm": "concat", "transformer": "mean"}
LENGTH = 96  # tokens of a sentence, <extract> included
RATES = {
    "scratch": 2e-3,
    "vectors": 2e-3,
    "frozen": 5e-3,
    "lora": 2e-3,
    "prompt": 1e-2,
    "finetuned": 1e-3,
}
EPOCHS = {"scratch": 6, "vectors": 6, "frozen": 10, "lora": 6, "prompt": 10, "finetuned": 4}
NAMES = ("majority", "tfidf", *(f"{how}-{kind}" for how in RATES for kind in KINDS))
# What is trained before the row, beside the head: prompt tuning, and a trained initial state.
PROMPTS: dict[str, dict[str, Any]] = {
    "lstm": {"trained_state": True},
    "transformer": {"prompt_vectors": 16},
}
PROMPT_NAMES = {"lstm": "base.initial_state.*", "transformer": "base.trained_prefix.*"}
NEEDS = {
    "vectors": "vectors",
    "frozen": "{kind}",
    "lora": "{kind}",
    "prompt": "{kind}",
    "finetuned": "{kind}",
}


def network(kind: str, dropout: float = 0.0) -> dict[str, Any]:
    """The network of text, from scratch."""
    return {"class_path": KINDS[kind], "init_args": EMBEDDING[kind] | {"dropout": dropout}}


def data() -> dict[str, Any]:
    """SST-2, read with the tokenizer of the pre-training text, whatever the row."""
    given = {
        "tokenizer": "tokenizer.json",
        "length": LENGTH,
        "truncate": True,
        "batch_tokens": 2048,
    }
    return {"class_path": "datamodules.sst2.SST2", "init_args": given}


def adamw(rate: float, decay: float = 0.1) -> dict[str, Any]:
    given = {"lr": rate, "betas": [0.9, 0.95], "weight_decay": decay, "fused": True}
    return {"class_path": "torch.optim.AdamW", "init_args": given}


def pretraining(kind: str, steps: int) -> dict[str, Any]:
    """The configuration of a language model of the text, or of word vectors."""
    text = {
        "class_path": "datamodules.text_file.TextFile",
        "init_args": {
            "path": "text.txt",
            "tokenizer": "tokenizer.json",
            "held_out": 0.02,
            "length": 128,
            "batch_size": 16,
        },
    }
    net, source, optimizer = None, text, adamw(2e-3)
    if kind == "vectors":
        source = {
            "class_path": "datamodules.neighbours.Neighbours",
            "init_args": {"text": text, "window": 4, "batch_size": 512},
        }
        net = {"class_path": "arlm.models.skipgram.SkipGram", "init_args": {"width": WIDTH}}
        optimizer = adamw(5e-3, 0.0)
    else:
        net = network(kind, 0.1)
    trainer = {
        "max_steps": steps,
        "val_check_interval": max(1, steps // 4),
        "check_val_every_n_epoch": None,
        "limit_val_batches": 100,
    }
    return {
        "seed_everything": 0,
        "data": source,
        "model": {"net": net, "optimizer": optimizer},
        "trainer": trainer,
        "samples": {"n": 4},
    }


def row(name: str, seed: int, epochs: int | None = None) -> dict[str, Any]:
    """The configuration of a row that is trained."""
    how, kind = name.split("-")
    trained: dict[str, Any] = {
        "class_path": "arlm.adapters.pretrained",
        "init_args": {"checkpoint": f"runs/pretrain-{kind}"},
    }
    base = {
        "scratch": network(kind, 0.3),
        "vectors": {
            "class_path": "arlm.adapters.with_embeddings",
            "init_args": {"net": network(kind, 0.3), "checkpoint": "runs/pretrain-vectors"},
        },
        "frozen": trained,
        "lora": {"class_path": "arlm.adapters.LoRA", "init_args": {"base": trained, "rank": 8}},
        "prompt": {
            "class_path": "arlm.adapters.pretrained",
            "init_args": trained["init_args"] | {"options": PROMPTS[kind]},
        },
        "finetuned": trained,
    }[how]
    net = {
        "class_path": "arlm.adapters.Classifier",
        "init_args": {
            "base": base,
            "pooling": POOLING[kind],
            "dropout": 0.3,
            "frozen": how == "frozen",
        },
    }
    objective = {"class_path": "arlm.training.objectives.Classification"}
    model: dict[str, Any] = {"net": net, "objective": objective, "optimizer": adamw(RATES[how])}
    if how == "prompt":
        model["learning_rates"] = {"base.*": 0.0, PROMPT_NAMES[kind]: 1.0}
    trainer = {"max_epochs": epochs or EPOCHS[how]}
    return {
        "seed_everything": seed,
        "data": data() | {"init_args": data()["init_args"] | {"seed": seed}},
        "model": model,
        "trainer": trainer,
        "samples": {"n": 0},
    }
