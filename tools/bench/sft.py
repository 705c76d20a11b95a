"""Supervised fine-tuning against TRL's SFTTrainer, at equal shapes and batches: CPU seconds a token, in turn.

python -m tools.bench.sft [--rows 16] [--length 128] [--width 128] [--depth 4] [--repeats 3]

Both train a transformer of GPT-2's form and one size, each with its own weights, on the same rows: a prompt of which
nothing is learnt, and an answer. Each trains by its own trainer (Lightning's as `arlm fit` has it; transformers' by
TRL), in float32 with AdamW and clipping, in a process of its own; steps at the start do not count. It needs TRL
(`pip install trl`), which nothing else here does: make an environment for it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from arlm.data.conversation_module import ConversationDataModule
from arlm.domains.conversation import Conversation, Message
from arlm.inference.memory import keep_freed_memory
from arlm.tokenizers import Tokenizer
from tools.bench.timing import machine, median

HEADS = 4
SKIPPED = 5  # steps at the start, which do not count


class Numbers(Tokenizer):
    """Numbers separated by spaces, each a token."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.token_bytes = torch.ones(vocab_size)

    def ids(self, text: str, strict: bool) -> Tensor:
        return torch.tensor([int(word) for word in text.split()])

    def decode(self, tokens: Tensor) -> str:
        return " ".join(map(str, tokens.tolist()))

    @property
    def definition(self) -> str:
        return str(self.vocab_size)


class Answers(ConversationDataModule):
    """Conversations of random numbers, half of each the prompt: of one length, or of lengths from an eighth of it on."""

    def __init__(self, vocab_size: int, ragged: bool, **options: Any) -> None:
        super().__init__(**options)
        self.numbers, self.ragged = Numbers(vocab_size - 4), ragged

    def _tokenizer(self) -> Tokenizer:
        return self.numbers

    def read(self, split: Any) -> list[Conversation]:
        noise = random.Random(split)

        def text(size: int) -> str:
            return " ".join(str(noise.randrange(self.numbers.vocab_size)) for _ in range(size))

        found: list[Conversation] = []
        for _ in range(2000 if split == "train" else 16):
            size = noise.randint(self.length // 8, self.length) if self.ragged else self.length
            prompt, answer = size // 2 - 1, size - size // 2 - 2  # role tokens, and the end
            found.append([Message("user", text(prompt)), Message("assistant", text(answer))])
        return found


def data_of(options: argparse.Namespace) -> Answers:
    """The rows; a step of arlm has as many of them as fit into `rows` rows of full length."""
    batch = options.rows * options.length
    return Answers(options.vocab, options.ragged, length=options.length, batch_tokens=batch)


def rows_a_step(data: Answers) -> int:
    """The mean number of rows in a step of arlm, which is the batch of TRL: equal work for each step of both."""
    return round(len(data.dataset("train")) / len(data.order("train")))


class Clock:
    """CPU and wall seconds at the end of each step, and the tokens of all rows by then, without padding."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float, int]] = []
        self.tokens = 0

    def tick(self, tokens: int) -> None:
        """A step has ended."""
        self.tokens += tokens
        self.ends.append((time.process_time(), time.perf_counter(), self.tokens))

    def seconds(self) -> list[float]:
        """CPU and wall seconds a token, steps at the start left out."""
        first, last = self.ends[SKIPPED - 1], self.ends[-1]
        *seconds, count = (end - start for start, end in zip(first, last, strict=True))
        return [each / count for each in seconds]


def of_arlm(options: argparse.Namespace) -> Clock:
    """The steps of a run of arlm."""
    import pytorch_lightning as pl

    from arlm.models.transformer import TransformerLanguageModel
    from arlm.training.module import AutoregressiveModule

    clock = Clock()
    keep_freed_memory()  # as `fit` does

    class Ticks(pl.Callback):
        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any
        ) -> None:
            # The end of an answer is what pads, too.
            clock.tick(int((batch.tokens != data.domain.eos_id).sum()) + len(batch.tokens))

    data = data_of(options)
    net = partial(
        TransformerLanguageModel,
        width=options.width,
        depth=options.depth,
        heads=HEADS,
        positions="learned",
        tied=True,
    )
    optimizer = partial(torch.optim.AdamW, lr=1e-3, fused=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=options.steps,
        callbacks=[Ticks()],
        limit_val_batches=0,
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        precision="bf16-mixed" if options.bf16 else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(AutoregressiveModule(data.spec, net, optimizer=optimizer), data)
    return clock


def of_trl(options: argparse.Namespace) -> Clock:
    """The steps of a run of TRL on the same rows."""
    from datasets import Dataset
    from tokenizers import Tokenizer as Library
    from tokenizers.models import WordLevel
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    clock = Clock()

    class Trainer(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            clock.tick(self.seen)  # at the start of the next step
            self.seen = int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *rest)

        seen = 0

    data = data_of(options)
    rows = data.dataset("train").rows  # type: ignore[attr-defined]
    columns = {
        "input_ids": [row.tokens.tolist() for row in rows],
        "completion_mask": [row.scored.long().tolist() for row in rows],
    }
    vocab_size, end = data.spec.vocab_size, data.domain.eos_id
    words = {f"<{i}>": i for i in range(vocab_size)}
    named = {"eos_token": f"<{end}>", "pad_token": f"<{end}>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Library(WordLevel(words, unk_token="<0>")), **named
    )
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=options.length,
        n_embd=options.width,
        n_layer=options.depth,
        n_head=HEADS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            max_steps=options.steps,
            per_device_train_batch_size=rows_a_step(data),
            learning_rate=1e-3,
            max_grad_norm=1.0,
            max_length=options.length,
            completion_only_loss=True,
            gradient_checkpointing=False,  # on by default; arlm has none here either
            bf16=options.bf16,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_steps=10**6,
            train_sampling_strategy="group_by_length" if options.ragged else "random",
        )
        trainer = Trainer(
            model=GPT2LMHeadModel(config),
            args=arguments,
            train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer,
        )
        trainer.train()
    return clock


RUNS = {"arlm": of_arlm, "trl": of_trl}


def in_a_process(name: str, arguments: list[str]) -> list[float]:
    """CPU and wall seconds a token, in a new process."""
    command = [sys.executable, "-m", "tools.bench.sft", *arguments, "--only", name]
    quiet = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print tokens per second of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"rows": 16, "length": 128, "width": 128, "depth": 4, "steps": 40}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--vocab", type=int, default=2000)
    parser.add_argument("--bf16", action="store_true", help="mixed precision, both")
    parser.add_argument("--ragged", action="store_true", help="rows of different lengths")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=list(RUNS), help="one run, in this process")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        torch.manual_seed(0)
        print(json.dumps(RUNS[options.only](options).seconds()))
        return
    print(machine(), f"| {options.rows} rows of {options.length}, width {options.width}")
    found: dict[str, list[list[float]]] = {name: [] for name in RUNS}
    for _ in range(options.repeats):
        for name, seconds in found.items():
            seconds.append(in_a_process(name, sys.argv[1:]))
    for index, of in enumerate(("CPU", "wall")):
        speed = {name: 1 / median([each[index] for each in s]) for name, s in found.items()}
        each = "  ".join(f"{name} {value:8,.0f}" for name, value in speed.items())
        ratios = [b[index] / a[index] for a, b in zip(found["arlm"], found["trl"], strict=True)]
        shown = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"tokens per {of} second: {each}  {speed['arlm'] / speed['trl']:.2f}x ({shown})")


if __name__ == "__main__":
    main()
