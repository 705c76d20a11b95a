"""Plausible mistakes: each is answered in one line that names the field and the value, and how to correct it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
import torch
from conftest import run_arlm
from PIL import Image

NET = "model: {net: {class_path: arlm.models.pixelcnn.PixelCNN, init_args: "
FILES = {
    "top.yaml": "seed_everything: 0\ntrainr: {max_steps: 3}\n",
    "trainer.yaml": "trainer:\n  max_epochs: 1\n  max_stepz: 3\n",
    "width.yaml": NET + "{widht: 3}}}\n",
    "initargs.yaml": "model:\n  net:\n    class_path: PixelCNN\n    initargs: {width: 3}\n",
    "class.yaml": "model:\n  net:\n    class_path: PixelCN\n",
    "module.yaml": "model:\n  net:\n    class_path: arlm.models.pixelcn.PixelCNN\n",
    "fragment.yaml": "\ndata: ../data/nope.yaml\n",
    "lr.yaml": "model:\n  optimizer:\n    class_path: torch.optim.AdamW\n    init_args:\n      lr: fast\n",
    "steps.yaml": "trainer:\n  max_steps: many\n",
    "syntax.yaml": "model: {net: [\n",
    "tabs.yaml": "trainer:\n\tmax_steps: 3\n",
    "colon.yaml": "trainer:\n  max_steps 3\n  max_epochs: 4\n",
    "quote.yaml": "data: 'python_docs\n",
    "list.yaml": "- data\n- model\n",
    "empty.yaml": "",
    "word.yaml": "hello\n",
    "twice/data.yaml": "class_path: Digits\ninit_args: {batch_sise: 3}\n",
    "twice/run.yaml": "data: data.yaml\n",
    "no_class.yaml": "init_args: {length: 3}\n",
    "reference.yaml": "trainer: {max_steps: '${nothing.here}'}\n",
    "text.txt": "the quick brown fox jumps over the lazy dog. " * 80,
    "broken.ckpt": "no checkpoint",
    "datamodules/mine.py": "class Mine: pass\n",
    "owndata.py": (
        "import torch\nfrom arlm.data.module import TokenDataModule\nfrom arlm.domains import ImageDomain\n"
        "class Half(TokenDataModule):\n"
        "    def __init__(self):\n        super().__init__(8)\n        self.domain = ImageDomain(2, 4, 4)\n"
        "    spec = property(lambda self: self.domain.spec)\n"
        "    def build(self, split):\n        return torch.zeros(64, 16).long()\n"
        "class Abstract(TokenDataModule):\n    def __init__(self):\n        super().__init__(8)\n"
    ),
    "some.yaml": "data: python_docs\n",
    "key.yaml": "? [a, b]\n: 3\ntrainr: {max_steps: 3}\n",
    "size.yaml": "class_path: PythonDocs\ninit_args: {batch_sise: 3}\n",
    "zero.yaml": "class_path: PythonDocs\ninit_args: {batch_size: 0}\n",
    "name.yaml": "class_path: PythonDoc\n",
    "gone.yaml": "class_path: datamodules.python_doc.PythonDocs\n",
    "whose.yaml": "class_path: owndata.Half\n",
}
FIT = "fit --config digits_pixelcnn --trainer.accelerator cpu --trainer.max_steps 1 --samples.n 0"

# A command, and what its one line has to hold. DIGITS and FOX are runs of images and of text.
MISTAKES: dict[str, tuple[str, ...]] = {
    # The verb, and what comes before any configuration.
    "fti": ("'fti' is not known", "did you mean 'fit'?"),
    "fit": ("model.net, data: missing", "--config", "arlm configs"),
    "train --config digits_pixelcnn": ("verb: 'train'", "did you mean 'fit'?"),
    "speak FOX": ("verb: 'speak'", "arlm --help"),
    "chat FOX": ("models text, which `arlm chat` does not do",),
    "fit digits_pixelcnn": ("'digits_pixelcnn'", "--config"),
    "fit --config": ("--config: its value is missing",),
    # Names of configurations and their paths.
    "fit --config digits_pixelcn": ("config: 'digits_pixelcn'", "did you mean 'digits_pixelcnn'?"),
    "fit --config configs/text/docs_lstm.yml": ("'configs/text/docs_lstm.yml'", "arlm configs"),
    "fit --config twice": ("config: 'twice' is a folder", "YAML file"),
    "configs docs_transfomer": ("'docs_transfomer'", "did you mean 'docs_transformer'?"),
    # Options.
    f"{FIT} --trainer.max_epoch 3": ("--trainer.max_epoch", "did you mean '--trainer.max_epochs'?"),
    f"{FIT} --trainr.max_epochs=3": ("--trainr.max_epochs", "'--trainer.max_epochs'"),
    f"{FIT} --data.bach_size 3": ("data.bach_size", "did you mean 'batch_size'?"),
    f"{FIT} --model.net.widht 3": ("model.net.widht", "did you mean 'width'?"),
    f"{FIT} --model.optimizer.lrr 3": ("model.optimizer.lrr", "did you mean 'lr'?"),
    f"{FIT} trainer.max_epochs=3": ("'trainer.max_epochs=3'", "did you mean '--trainer.max_epochs'?"),
    f"{FIT} --data.batch_size": ("--data.batch_size: its value is missing",),
    # Values.
    f"{FIT} --model.optimizer.lr fast": ("model.optimizer.lr: 'fast'", "give a number"),
    f"{FIT} --trainer.max_epochs abc": ("trainer.max_epochs: 'abc'", "give an integer"),
    f"{FIT} --data.batch_size 3.5": ("data.batch_size: '3.5'", "give an integer"),
    f"{FIT} --data.batch_size 0": ("data.batch_size: 0 is out of range", "at least 1"),
    f"{FIT} --data.batch_size 5000": ("data.batch_size: 5000", "choose at most 1437"),
    f"{FIT} --model.net.width x": ("model.net.width: 'x'", "give an integer"),
    f"{FIT} --model.net.width -3": ("model.net.width: -3", "out of range"),
    f"{FIT} --trainer.precision 12": ("trainer.precision: '12'", "'bf16-mixed'"),
    f"{FIT} --trainer.accelerator gpuu": ("trainer: ", "accelerator", "gpuu"),
    f"{FIT} --trainer.accelerator cuda": ("trainer: ", "CUDA"),
    f"{FIT} --trainer.devices 0": ("trainer: ", "devices"),
    f"{FIT} --seed_everything abc": ("seed_everything: 'abc'", "integer"),
    f"{FIT} --print_config=x": ("--print_config: 'x'",),
    # Classes and modules.
    f"{FIT} --model.net PixelCN": ("model.net: 'PixelCN'", "did you mean 'PixelCNN'?"),
    f"{FIT} --model.net arlm.models.pixelcnn.PixelCN": ("'PixelCN'", "did you mean 'PixelCNN'?"),
    f"{FIT} --model.optimizer Adamm": ("model.optimizer: 'Adamm'", "did you mean 'Adam'?"),
    f"{FIT} --model.objective Distilation": ("'Distilation'", "did you mean 'Distillation'?"),
    f"{FIT} --data Digit": ("data: 'Digit'", "did you mean 'Digits'?"),
    f"{FIT} --data pythondocs": ("data: 'pythondocs'", "did you mean 'PythonDocs'?"),
    f"{FIT} --data nope.yaml": ("data: 'nope.yaml' is neither a file nor a class", "check the path"),
    f"{FIT} --data datamodules.digit.Digits": ("'datamodules' has no 'digit'", "'digits'"),
    f"{FIT} --data datamodules.mine.Mine": ("datamodules", "'mine'", "another folder"),
    f"{FIT} --data mydata.Mine": ("data", "there is no module 'mydata'", "run from its folder"),
    f"{FIT} --data owndata.Half": ("build() of Half returned a Tensor", "FixedRows"),
    f"{FIT} --data owndata.Abstract": ("data: 'owndata.Abstract'", "abstract methods"),
    f"{FIT} --data pytorch_lightning.LightningDataModule": ("subclass of TokenDataModule",),
    f"{FIT} --model.net torch.nn.Linear": ("model.net: 'torch.nn.Linear'", "Autoregressor"),
    f"{FIT} --trainer.logger WandbLogger": ("WandbLogger", "`pip install 'wandb>="),
    f"{FIT} --trainer.callbacks+=EarlyStoping": ("'EarlyStoping'", "did you mean 'EarlyStopping'?"),
    f"{FIT} --data PythonDocs": ("model.net: PixelCNN needs an image",),
    # Inside a file.
    f"{FIT} --config top.yaml": ("top.yaml, line 2: trainr: unknown key", "did you mean 'trainer'?"),
    f"{FIT} --config trainer.yaml": ("trainer.yaml, line 3: trainer.max_stepz", "'max_steps'"),
    f"{FIT} --config width.yaml": ("width.yaml, line 1: model.net.widht", "did you mean 'width'?"),
    f"{FIT} --config initargs.yaml": ("initargs.yaml, line 4", "did you mean 'init_args'?"),
    f"{FIT} --config class.yaml": ("class.yaml, line 2: model.net: 'PixelCN'", "'PixelCNN'"),
    f"{FIT} --config module.yaml": ("module.yaml, line 2", "'pixelcn'", "did you mean 'pixelcnn'?"),
    f"{FIT} --config fragment.yaml": ("fragment.yaml, line 2: data: '../data/nope.yaml'",),
    f"{FIT} --config lr.yaml": ("lr.yaml, line 5: model.optimizer.lr: 'fast'", "give a number"),
    f"{FIT} --config twice/run.yaml": ("twice/data.yaml, line 2: data.batch_sise", "'batch_size'"),
    "fit --config digits_pixelcnn --config steps.yaml": ("steps.yaml, line 2: trainer.max_steps: 'many'",),
    f"{FIT} --config syntax.yaml": ("syntax.yaml, line 2: no valid YAML",),
    f"{FIT} --config tabs.yaml": ("tabs.yaml, line 2: no valid YAML", "spaces"),
    f"{FIT} --config colon.yaml": ("colon.yaml, line 3: no valid YAML", "line above"),
    f"{FIT} --config quote.yaml": ("quote.yaml, line 2: no valid YAML",),
    f"{FIT} --config list.yaml": ("list.yaml holds no keys", "data, model and trainer"),
    f"{FIT} --config key.yaml": ("key.yaml, line 1: no valid YAML", "unhashable key"),
    f"{FIT} --data {'x' * 300}": ("is neither a file nor a class",),
    f"{FIT} --trainer.logger false --run-name mine": ("--run-name: 'mine' given", "no logger"),
    f"{FIT} --run-name .": ("--run-name: '.' is no name",),
    f"{FIT} --config empty.yaml": ("empty.yaml is empty",),
    f"{FIT} --config word.yaml": ("word.yaml holds no keys",),
    "fit --config digits_pixelcnn --config reference.yaml": ("configuration", "nothing.here"),
    # Checkpoints.
    "sample": ("run: missing",),
    "sample nope.ckpt": ("'nope.ckpt' does not exist",),
    "sample broken.ckpt": ("'broken.ckpt' is truncated or no checkpoint",),
    "sample twice": ("checkpoint: the folder 'twice' holds no best.ckpt", "train first"),
    f"show {'x' * 300}": ("does not exist", "a run's folder"),
    f"{FIT} --ckpt_path nope.ckpt": ("'nope.ckpt' does not exist",),
    f"{FIT} --ckpt_path DIGITS": ("model.net", "width 4, not 32", "configuration"),
    # Verbs.
    "sample FOX --temprature 2": ("--temprature", "did you mean '--temperature'?"),
    "sample FOX --top_k 5": ("--top_k", "did you mean '--top-k'?"),
    "sample FOX --temperature warm": ("--temperature: 'warm'", "give a number"),
    "sample FOX --top-p 2": ("top_p: 2.0 is out of range",),
    "sample FOX --device gpu": ("--device: 'gpu'", "cuda"),
    "sample FOX --complete wide.png": ("--complete: 'wide.png'", "text"),
    "sample FOX --max-new-tokens 0": ("--max-new-tokens: 0",),
    "show nope": ("'nope' does not exist",),
    "sample DIGITS --seed one": ("--seed: 'one' does not fit", "give an integer"),
    "sample DIGITS --prompt hello": ("--prompt: 'hello'",),
    "sample FOX --prompt the fox": ("'fox': not expected here", "quote"),
    "sample DIGITS --seed": ("--seed: its value is missing",),
    "translate FOX text.txt": ("models text, which `arlm translate` does not do", "`arlm sample`"),
    "evaluate FOX --split dev": ("--split: 'dev' is not known", "choose"),
    "evaluate FOX --data nope": ("--data: 'nope'", "arlm configs"),
    "evaluate FOX --data python_doc": ("--data: 'python_doc'", "did you mean 'python_docs'?"),
    "evaluate FOX --data dates": ("--data: 'dates' is for TranslationDomain", "models TextDomain"),
    "evaluate FOX --data no_class.yaml": ("'no_class.yaml' names no class_path",),
    "evaluate FOX --data size.yaml": ("--data: 'size.yaml'", "'batch_sise'", "correct the file"),
    "evaluate FOX --data zero.yaml": ("data.batch_size: 0 is out of range", "at least 1"),
    "evaluate FOX --data name.yaml": ("--data: 'name.yaml'", "did you mean 'PythonDocs'?"),
    "evaluate FOX --data gone.yaml": ("--data: 'gone.yaml'", "python_doc", "correct the file"),
    "evaluate FOX --data whose.yaml": ("--data: 'whose.yaml'", "--trust owndata.py"),
    "score DIGITS text.txt": ("'text.txt' is not an image",),
    "score DIGITS wide.png": ("'wide.png' is 9x8 pixels",),
    "compare DIGITS FOX": ("cannot be compared: they score 11520 and 180 tokens", "give runs of the same data"),
    "fit --config mnist_pixelcnn_short --data.data_dir gone": ("data.data_dir: 'gone/MNIST", "is missing", "put the file there"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files that hold mistakes, and a run of images and one of text."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    Image.new("L", (9, 8)).save(folder / "wide.png")
    tiny = "--model.net.width 4 --model.net.depth 1 --trainer.logger.name digits"
    fox = (
        "fit --config docs_lstm --data TextFile --data.path text.txt --data.length 16 "
        "--data.batch_size 4 --model.net.width 8 --trainer.accelerator cpu --trainer.max_steps 1 "
        "--samples.n 0 --trainer.logger.name fox"
    )
    for command in (f"{FIT} {tiny}", fox):
        done = run_arlm(*command.split(), folder=folder)
        assert done.code == 0, done.err
    return folder


@pytest.mark.parametrize(("command", "parts"), MISTAKES.items(), ids=range(len(MISTAKES)))
def test_a_mistake_is_answered_in_one_line(
    command: str, parts: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    before = torch.initial_seed()
    runs = {"DIGITS": "runs/digits", "FOX": "runs/fox"}
    words = [runs.get(word, word) for word in shlex.split(command)]
    line = run_arlm(*words, folder=folder).error()
    print(line)
    for part in parts:
        assert runs.get(part, part) in line
    assert len(line) < 500
    torch.manual_seed(before)
