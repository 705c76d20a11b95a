"""What sampling costs beside the network: processors, draw and scores at V = 50,257.

python -m tools.bench.sampler [--batches 1 16] [--rounds 7] [--depth 12] [--width 768]

A step is one token of every row through a transformer of the size of GPT-2 small, whose initial weights are random. The
parts run in turn with it, on logits of two kinds: `flat`, normal with deviation 2.5, and `peaked`, deviation 6. `share` is
the median of the quotients of a part's time and that of the step of its round. `transformers`, if it is installed, is
its class for the same on the same logits, with the median of the quotients (ours / theirs). Times are CPU
milliseconds of this process with one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from arlm.core import Spec, token_log_prob
from arlm.inference.memory import keep_freed_memory
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import draw
from arlm.sampling.inference_context import inference_context
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.processors.bad_words import BadWords
from arlm.sampling.processors.epsilon import Epsilon
from arlm.sampling.processors.eta import Eta
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.green_list import GreenList
from arlm.sampling.processors.logit_bias import LogitBias
from arlm.sampling.processors.min_p import MinP
from arlm.sampling.processors.no_repeat_ngram import NoRepeatNgram
from arlm.sampling.processors.repetition_penalty import RepetitionPenalty
from arlm.sampling.processors.synth_id import SynthId
from arlm.sampling.processors.temperature import Temperature
from arlm.sampling.processors.top_h import TopH
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_p import TopP
from arlm.sampling.processors.typical import Typical
from tools.bench.timing import machine, median

VOCABULARY, PROMPT, LENGTH = 50257, 32, 64
DEVIATIONS = {"flat": 2.5, "peaked": 6.0}
WORDS = ((4,), (11, 12), (3, 3, 3), (100, 7), (50000,))
Pair = tuple[LogitsProcessor, str, tuple]
# Each processor, and the class of transformers with its arguments.
PROCESSORS: dict[str, Pair] = {
    "temperature 0.8": (Temperature(0.8), "TemperatureLogitsWarper", (0.8,)),
    "top_k 50": (TopK(50), "TopKLogitsWarper", (50,)),
    "top_p 0.9": (TopP(0.9), "TopPLogitsWarper", (0.9,)),
    "top_p 0.5": (TopP(0.5), "TopPLogitsWarper", (0.5,)),
    "min_p 0.05": (MinP(0.05), "MinPLogitsWarper", (0.05,)),
    "typical 0.9": (Typical(0.9), "TypicalLogitsWarper", (0.9,)),
    "epsilon 0.0005": (Epsilon(0.0005), "EpsilonLogitsWarper", (0.0005,)),
    "eta 0.001": (Eta(0.001), "EtaLogitsWarper", (0.001,)),
    "top_h 0.4": (TopH(0.4), "TopHLogitsWarper", (0.4,)),
    "repetition_penalty 1.2": (RepetitionPenalty(1.2), "RepetitionPenaltyLogitsProcessor", (1.2,)),
    "no_repeat_ngram 3": (NoRepeatNgram(3), "NoRepeatNGramLogitsProcessor", (3,)),
    "bad_words": (BadWords(WORDS), "NoBadWordsLogitsProcessor", (list(map(list, WORDS)), 0)),
    "logit_bias": (
        LogitBias({7: 1.5, 9: -2.0}),
        "SequenceBiasLogitsProcessor",
        ({(7,): 1.5, (9,): -2.0},),
    ),
    "green_list 2": (GreenList(2.0), "WatermarkLogitsProcessor", (VOCABULARY, "cpu", 0.5, 2.0)),
    "synth_id": (
        SynthId(1),
        "SynthIDTextWatermarkLogitsProcessor",
        (5, list(range(30)), 2**16, 0, 1024, "cpu"),
    ),
}
Times = dict[str, list[float]]


def in_turn(actions: dict[str, Callable[[], object]], rounds: int) -> Times:
    """CPU milliseconds of each action, in turn, after a warm-up of each; every other round is reversed.

    An action that takes less than 3 milliseconds is repeated, for about that time.
    """
    times: Times = {name: [] for name in actions}
    repeats = dict.fromkeys(actions, 1)
    for turn in range(rounds + 2):
        for name, action in list(actions.items())[:: 1 if turn % 2 else -1]:
            started = time.process_time()
            for _ in range(repeats[name]):
                action()
            milliseconds = 1000 * (time.process_time() - started) / repeats[name]
            if turn > 1:
                times[name].append(milliseconds)
            elif turn:
                repeats[name] = max(1, min(50, int(3 / max(milliseconds, 0.001))))
    return times


def share(times: Times, part: str, whole: str) -> float:
    """The median quotient of two actions of the same round."""
    return median([a / b for a, b in zip(times[part], times[whole], strict=True)])


def step_of(net: TransformerLanguageModel, batch: int) -> Callable[[], object]:
    """One token of every row, after a prompt of `PROMPT` tokens."""
    with inference_context(net):
        _, state = net.start(batch, LENGTH, None)
        prompt = torch.zeros(batch, PROMPT, dtype=torch.long)
        _, state = net.advance(prompt, state, None)
    return lambda: net.advance(prompt[:, :1], state[:], None)


def theirs_of(kind: str, arguments: tuple, logits: Tensor) -> Callable[[], object] | None:
    """The call of a processor of transformers, if it is installed."""
    try:
        from transformers.generation import logits_process
    except ImportError:
        return None
    processor = getattr(logits_process, kind)(*arguments)
    return partial(processor, tokens_of(len(logits))[:, :PROMPT].clone(), logits)


def tokens_of(batch: int) -> Tensor:
    """Random rows (B, LENGTH) of tokens, of which the first `PROMPT` are given."""
    random = torch.Generator().manual_seed(1)
    return torch.randint(VOCABULARY, (batch, LENGTH), generator=random)


def parts_of(logits: Tensor) -> dict[str, Callable[[], object]]:
    """The parts of sampling on logits (B, V), and the warpers of transformers after "transformers "."""
    batch = len(logits)
    lengths, tokens = torch.full((batch,), PROMPT), tokens_of(batch)
    history = History(tokens, lengths, lengths // 2, Spec(VOCABULARY, (LENGTH,), eos_id=0))
    noise = torch.linspace(0.05, 0.95, batch, dtype=torch.float64)
    parts: dict[str, Callable[[], object]] = {}
    for name, (processor, kind, arguments) in PROCESSORS.items():
        parts[name] = partial(processor, logits, history)
        peer = theirs_of(kind, arguments, logits)
        if peer is not None:
            parts[f"transformers {name}"] = peer
    nucleus, best = TopP(0.9)(logits, history), Greedy()(logits, history)
    parts["greedy"] = partial(Greedy(), logits, history)
    parts["argmax of torch"] = partial(logits.argmax, -1)
    parts["draw"] = partial(draw, logits, noise)
    parts["draw after top_p 0.9"] = partial(draw, nucleus, noise)
    parts["draw after greedy"] = partial(draw, best, noise)
    parts["multinomial of torch"] = lambda: logits.softmax(-1).multinomial(1)
    parts["score"] = partial(token_log_prob, logits, tokens[:, 0])
    parts["temperature, top_p, draw, score"] = lambda: (
        draw(TopP(0.9)(Temperature(0.8)(logits, history), history), noise),
        token_log_prob(logits, tokens[:, 0]),
    )
    return parts


def compare(net: TransformerLanguageModel, batch: int, kind: str, rounds: int) -> None:
    """Print a line for each part."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, VOCABULARY, generator=random) * DEVIATIONS[kind]
    with inference_context(net):
        times = in_turn({"step": step_of(net, batch)} | parts_of(logits), rounds)
    print(f"\nbatch {batch}, {kind} logits: step {median(times['step']):.2f} ms")
    print(f"{'':34}{'ms':>9}{'share':>9}{'transformers, ms':>19}{'ratio':>8}")
    for name, found in times.items():
        if name == "step" or name.startswith("transformers"):
            continue
        line = f"{name:34}{median(found):9.3f}{share(times, name, 'step'):9.2%}"
        theirs = f"transformers {name}"
        if theirs in times:
            line += f"{median(times[theirs]):19.3f}{share(times, name, theirs):8.2f}"
        print(line, flush=True)


def main() -> None:
    """Print a table for each batch size and kind of logits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    spec = Spec(VOCABULARY, (LENGTH,))
    net = TransformerLanguageModel(spec, options.width, options.depth, options.width // 64)
    weights = sum(parameter.numel() for parameter in net.parameters())
    print(f"{machine()}; {weights / 1e6:.0f} million weights")
    for batch in options.batches:
        for kind in DEVIATIONS:
            compare(net, batch, kind, options.rounds)


if __name__ == "__main__":
    main()
