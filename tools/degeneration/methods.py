"""The decoding methods that are compared, as texts: what `--processors` takes, a preset, or a search.

draws                        the network as it is
temperature=0.8,top_p=0.9    logits processors, as for `arlm sample --processors`
preset=notes                 as for `--preset`
beam=4                       beam search
contrastive=5:penalty=0.6    contrastive search
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from arlm.core import Autoregressor
from arlm.domains import Domain
from arlm.errors import UserError, require
from arlm.sampling import beam_search, contrastive_search, generate
from arlm.sampling.presets import parse_preset
from arlm.sampling.processors import parse_processors
from arlm.sampling.values import read_value

DRAWS = "draws"
#: one parameter at several values, which a picture joins by a line
SWEEPS = {
    "temperature": (0.3, 0.5, 0.7, 0.9, 1.2),
    "top_k": (2, 5, 10, 40),
    "top_p": (0.3, 0.5, 0.8, 0.9, 0.95),
    "min_p": (0.02, 0.1, 0.3),
    "typical": (0.3, 0.8, 0.95),
}
ONES = (
    *("epsilon=0.005", "eta=0.01", "top_n_sigma=1", "top_h=0.4", "mirostat=3", "mirostat=4"),
    *("xtc=0.5:threshold=0.1", "dynamic_temperature=0.3:high=1.1"),
    *("preset=huggingface", "preset=llamacpp"),
)
SEARCHES = ("greedy", "beam=4", "contrastive=5:penalty=0.6")
PENALTIES = (
    *("frequency_penalty=0.5", "presence_penalty=0.5", "repetition_penalty=1.2"),
    *("notes_penalty=1.2:presence=1.2", "dry=0.8", "no_repeat_ngram=4"),
)
DEFAULT = (
    DRAWS,
    *(f"{name}={value:g}" for name, values in SWEEPS.items() for value in values),
    *ONES,
    *(f"{penalty},top_p=0.9" for penalty in PENALTIES if not penalty.startswith("notes")),
    "preset=notes",
    *SEARCHES,
    *(f"{penalty},greedy" for penalty in PENALTIES),
)
FAMILIES = ("draws", "searches", "draws with a penalty", "greedy with a penalty")
SEARCH = re.compile(r"(beam|contrastive)=(\d+)(?::penalty=(.+))?")
PENALTY = 0.6  # of contrastive search, by default


@dataclass(frozen=True)
class Method:
    """One way from a network and prompts to texts."""

    name: str
    processors: tuple[Any, ...] = ()
    beam: int = 0
    candidates: int = 0  # of contrastive search
    penalty: float = PENALTY

    @property
    def family(self) -> str:
        """One of `FAMILIES`."""
        penalised = any(p.partition("=")[0] in self.name for p in PENALTIES)
        penalised |= self.name == "preset=notes"
        searches = bool(self.beam or self.candidates or "greedy" in self.name)
        if penalised:
            return FAMILIES[3 if searches else 2]
        return FAMILIES[1 if searches else 0]

    def __call__(
        self, net: Autoregressor, seeds: Sequence[int], prompts: Tensor, length: int
    ) -> Tensor:
        """Continue prompts (B, P) to rows (B, length) of tokens."""
        batch = len(prompts)
        if self.beam:
            given = {"beam": self.beam, "processors": self.processors, "prompt": prompts}
            return beam_search(net, batch, length, **given).tokens[:, 0]  # type: ignore[arg-type]
        if self.candidates:
            options = {"top_k": self.candidates, "penalty": self.penalty}
            return contrastive_search(net, batch, length, prompt=prompts, **options).tokens  # type: ignore[arg-type]
        drawn = generate(net, seeds, length, processors=self.processors, forced=prompts)
        return drawn.tokens


def parse_method(text: str, domain: Domain) -> Method:
    """The method of a text, with its processors bound to the domain; a UserError if there is none."""
    if text == DRAWS:
        return Method(text)
    if text.startswith(("beam", "contrastive")):
        return _search(text)
    if text.startswith("preset="):
        chain = parse_preset(text.removeprefix("preset="))
    else:
        chain = parse_processors(text, option="--method")
    return Method(text, tuple(each.bind(domain) for each in chain))


def _search(text: str) -> Method:
    """The search of a text; a UserError if it is none, or a number is out of range."""
    found = SEARCH.fullmatch(text)
    if not found:
        raise UserError(
            f"--method: {text!r} is not understood; write for example beam=4 or contrastive=5:penalty=0.6"
        )
    kind, width, penalty = found.groups()
    owner = f"--method: {kind}"
    count = read_value(owner, "width", width, int)
    require(count >= 1, owner, count, "choose 1 or more")
    if kind == "beam":
        if penalty is not None:
            raise UserError(f"{owner} has no penalty; write beam={count}")
        return Method(text, beam=count)
    share = PENALTY if penalty is None else read_value(owner, "penalty", penalty, float)
    require(0 <= share <= 1, f"{owner}:penalty", share, "choose 0 to 1")
    return Method(text, candidates=count, penalty=share)
