"""What each verb imports: a verb that imports less starts sooner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from arlm import checkpoints
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.pixelcnn import PixelCNN
from arlm.models.transformer import TransformerLanguageModel
from datamodules.dates import Dates
from datamodules.digits import Digits
from datamodules.instructions import Instructions
from datamodules.python_docs import PythonDocs

# Libraries that take a tenth of a second and more, or that are of one domain or one output.
HEAVY = {
    *("torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning_fabric", "numba"),
    *("tokenizers", "transformers", "sacrebleu", "PIL", "matplotlib", "jinja2", "tensorboard"),
    *("sklearn", "scipy", "pandas", "sympy", "jsonargparse", "omegaconf", "yaml", "IPython"),
    *("torch._dynamo", "torch._inductor", "torch.utils.tensorboard"),
}
BASE = {"torch", "tokenizers"}
# Lightning imports these: torchmetrics tries what is installed.
LIGHTNING = {
    *("pytorch_lightning", "lightning_fabric", "torchmetrics", "torchvision", "transformers"),
    *("matplotlib", "scipy", "sympy", "pandas", "PIL", "jinja2", "yaml", "tensorboard"),
    *("sklearn", "torch._dynamo", "torch._inductor", "torch.utils.tensorboard"),
}
CASES: list[tuple[str, set[str]]] = [
    ("--help", set()),
    ("sample --help", set()),
    ("configs", set()),
    ("sample text.ckpt -n 1 --stream --max-new-tokens 2", BASE),
    ("sample image.ckpt -n 1", BASE | {"PIL"}),
    ("next text.ckpt --prompt abc --top-p 0.9", BASE),
    ("fill text.ckpt M[MASK]y", BASE),
    ("score text.ckpt note.txt", BASE),
    ("score text.ckpt note.txt --html page.html", BASE | {"jinja2"}),
    ("detect --help", set()),
    ("detect text.ckpt note.txt --watermark gumbel", BASE),
    ("translate pair.ckpt note.txt --beam 1", BASE),
    ("attention text.ckpt abc --html page.html", BASE | {"jinja2", "PIL"}),
    ("chat --help", set()),
    ("chat talk.ckpt --json", BASE),
    ("show text.ckpt", BASE),
    ("runs .", BASE),
    ("evaluate text.ckpt", BASE | LIGHTNING),
]
SCRIPT = """
import atexit
import sys
atexit.register(lambda: print(*sys.modules, file=open("modules", "w")))
from arlm.__main__ import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small checkpoints that were not trained, of texts, images, conversations and pairs."""
    folder = tmp_path_factory.mktemp("start")
    docs, digits, dates = PythonDocs(length=16), Digits(), Dates(pairs=300)
    talk = Instructions(conversations=50)
    networks = {
        "text": (TransformerLanguageModel(docs.spec, width=8, heads=2, depth=1), docs),
        "image": (PixelCNN(digits.spec, width=4, depth=1), digits),
        "talk": (TransformerLanguageModel(talk.spec, width=8, heads=2, depth=1), talk),
        "pair": (LSTMSeq2Seq(dates.spec, width=8, embedding=8), dates),
    }
    for name, (net, data) in networks.items():
        checkpoints.save(folder / f"{name}.ckpt", net, data)
    (folder / "note.txt").write_text("3 May 2001\n")
    return folder


@pytest.mark.parametrize(("command", "allowed"), CASES, ids=[command for command, _ in CASES])
def test_a_verb_imports_only_what_it_needs(command: str, allowed: set[str], folder: Path) -> None:
    run = [sys.executable, "-c", SCRIPT, *command.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("ARLM_NATIVE", None)
    modules = folder / "modules"
    modules.unlink(missing_ok=True)
    message = '{"content": "REV 12"}\n'  # for the verb that reads the standard input
    done = subprocess.run(
        run, cwd=folder, env=environment, input=message, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = set(modules.read_text().split())
    assert "arlm" in found
    assert (found & HEAVY) - allowed == set()
