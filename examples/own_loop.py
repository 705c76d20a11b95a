"""Train with a `Dataset`, a `Trainer`, a callback and a logger of your own, then score and sample.

python examples/own_loop.py
"""

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset

import arlm
from arlm.domains import TextDomain
from arlm.models.rnn import LSTMLanguageModel
from arlm.tokenizers import CharacterTokenizer
from arlm.training.module import AutoregressiveModule

LENGTH = 32


class Counting(Dataset):
    """Pieces of 1, 2, 3, ... written out: any tensors of tokens will do."""

    def __init__(self, first: int, last: int, domain: TextDomain) -> None:
        text = ", ".join(map(str, range(first, last)))
        self.tokens = domain.encode(text)

    def __len__(self) -> int:
        return len(self.tokens) // LENGTH

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.tokens[index * LENGTH : (index + 1) * LENGTH]


class PrintSample(pl.Callback):
    """One sample after each validation."""

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        tokens = arlm.generate(module.net, seeds=[0]).tokens
        print(f"step {trainer.global_step:4}: {module.domain.decode(tokens[0])}")


pl.seed_everything(0, verbose=False)
domain = TextDomain(CharacterTokenizer("0123456789, "))
module = AutoregressiveModule(
    domain.spec(LENGTH),
    net=lambda spec: LSTMLanguageModel(spec, width=64),
    optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.01),
    domain=domain,
)
trainer = pl.Trainer(
    max_epochs=6,
    accelerator="cpu",
    callbacks=[PrintSample()],
    logger=CSVLogger("runs", name="own_loop"),
    log_every_n_steps=10,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(
    module,
    DataLoader(Counting(1000, 5000, domain), batch_size=16, shuffle=True),
    DataLoader(Counting(5000, 6000, domain), batch_size=64),
)
trainer.save_checkpoint("own_loop.ckpt")

net, domain, *_ = arlm.load("own_loop.ckpt")
for text in ("4998, 4999, 5000, 5001", "4998, 4999, 1234, 8765"):
    with torch.no_grad():
        nats = -net.log_prob(domain.encode(text)[None]).sum()
    print(f"{text}: {nats:.1f} nats")
