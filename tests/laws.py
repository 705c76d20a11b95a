"""The laws that every network obeys, in float64, and the networks that they are applied to.

A network joins by existing in `arlm/models` or `arlm/adapters`; a line in `SMALL` makes it small, a function in
`reach.py` tells which earlier tokens it should reach, where that is not all of them.
"""

from __future__ import annotations

import importlib
import inspect
import io
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from reach import reach_of
from torch import Tensor

import arlm.adapters
import arlm.models
from arlm import checkpoints
from arlm.core import Autoregressor, Spec, log_softmax
from arlm.data.dataset import generator
from arlm.errors import UserError
from arlm.layers.features import FeatureAutoregressor
from arlm.models.bert import BERT
from arlm.models.bilstm import BiLSTM
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.sampling import fixed_point, generate

LLAMA = {
    "width": 8,
    "depth": 2,
    "heads": 4,
    "kv_heads": 2,
    "norm": "rms",
    "mlp": "swiglu",
    "bias": False,
}
SMALL: dict[str, list[dict]] = {
    "RNNLanguageModel": [{"width": 8, "depth": 2}],
    "GRULanguageModel": [{"width": 8, "depth": 2}],
    "LSTMLanguageModel": [
        {"width": 8, "depth": 2, "trained_state": True},
        {"width": 8, "depth": 2},
        {"width": 8, "depth": 2, "embedding": 6, "tied": True},
    ],
    "BERT": [
        {"width": 8, "depth": 2, "heads": 2},
        {"width": 8, "depth": 1, "heads": 2, "positions": "sinusoidal", "tied": False},
        {
            "width": 8,
            "depth": 1,
            "heads": 2,
            "norm_first": False,
            "mlp": "swiglu",
            "positions": "learned",
        },
    ],
    "BiLSTM": [{"width": 8, "depth": 2}, {"width": 6, "depth": 1, "tied": False}],
    "TwoSidedNGram": [{}, {"order": 1}],
    "KneserNeyNGram": [{"order": 3}, {"order": 1}],
    "NeuralNGram": [
        {"order": 3, "embedding": 4, "width": 8},
        {"order": 2, "embedding": 4, "width": 8, "direct": False},
    ],
    "TransformerLanguageModel": [
        {"width": 8, "depth": 2, "heads": 2, "positions": "rotary"},
        {"width": 8, "depth": 2, "heads": 2, "positions": "learned"},
        {"width": 8, "depth": 2, "heads": 2, "positions": "alibi", "norm_first": False},
        {
            "width": 8,
            "depth": 2,
            "heads": 2,
            "sliding_window": 2,
            "windowed_blocks": "alternate",
            "tied": True,
            "start_token": 1,
        },
        LLAMA,
        LLAMA | {"prompt_vectors": 3},
        {"width": 8, "depth": 2, "heads": 2, "positions": "alibi", "prompt_vectors": 2},
        {
            "width": 8,
            "depth": 2,
            "heads": 4,
            "kv_heads": 2,
            "positions": "learned",
            "sliding_window": 4,
            "windowed_blocks": "alternate",
            "prefix_vectors": 3,
        },
    ],
    "LSTMSeq2Seq": [
        {"width": 6, "embedding": 5, "attention": "none", "bidirectional": False, "reverse": True},
        {"width": 6, "embedding": 5, "attention": "additive", "depth": 2},
        {"width": 6, "embedding": 5, "attention": "dot"},
        {"width": 6, "embedding": 6, "attention": "general", "tied": False, "encoder_width": 4},
        {"width": 6, "embedding": 5, "attention": "general", "depth": 2, "feeding": True},
        {"width": 6, "embedding": 5, "attention": "general", "shared": True},
    ],
    "TransformerSeq2Seq": [
        {"width": 8, "depth": 2, "heads": 2},
        {"width": 8, "depth": 1, "heads": 2, "norm_first": False, "positions": "learned"},
        {"width": 8, "depth": 1, "heads": 2, "tied": False, "mlp": "swiglu"},
        {"width": 8, "depth": 1, "heads": 2, "shared": True},
    ],
    "PrefixTransformer": [
        {"width": 8, "depth": 2, "heads": 2},
        {"width": 8, "depth": 1, "heads": 2, "positions": "learned", "norm_first": False},
        {"width": 8, "depth": 2, "heads": 2, "shared": False, "tied": False, "mlp": "swiglu"},
    ],
    "PixelCNN": [{"width": 12, "depth": 2, "head_width": 12}],
    "RowLSTM": [{"width": 12, "depth": 2, "head_width": 12}],
    "DiagonalBiLSTM": [
        {"width": 12, "depth": 2, "head_width": 12},
        {"width": 12, "depth": 2, "head_width": 12, "complete": False},
    ],
    "PixelSNAIL": [
        {"width": 6, "depth": 2, "residuals": 1, "key_width": 2, "value_width": 3, "mixtures": 2},
        {"width": 6, "depth": 1, "key_width": 2, "value_width": 3, "mixtures": 0},
    ],
    "PixelCNNPlusPlus": [{"width": 4, "depth": 2, "mixtures": 2}],
    "GatedPixelCNN": [
        {"width": 12, "depth": 2, "head_width": 12},
        {"width": 12, "depth": 1, "head_width": 12, "kernel": 5},
    ],
}
BLOCKS = partial(TransformerLanguageModel, width=8, depth=1, heads=2)
SMALL["LogitArithmetic"] = [
    {
        "nets": [
            partial(LSTMLanguageModel, width=8, depth=1),
            partial(NeuralNGram, order=3, embedding=4, width=8),
        ],
        "weights": [0.7, 0.5],
    },
    {
        "nets": [BLOCKS, partial(BLOCKS, positions="learned")],
        "weights": [0.8, -0.3],
        "contexts": ["given", "none"],
    },
    {
        "nets": [
            partial(LSTMSeq2Seq, width=6, embedding=5, attention="dot"),
            partial(TransformerSeq2Seq, width=8, depth=1, heads=2),
            BLOCKS,
        ],
        "weights": [0.6, 0.5, -0.2],
        "contexts": ["given", "given", "none"],
    },
    {
        "nets": [partial(PixelCNN, width=12, depth=1, head_width=12)],
        "weights": [1.5, -0.5],
        "contexts": ["given", "null"],
        "indices": [0, 0],
    },
]
SMALL["ContextAsPrefix"] = [
    {"base": partial(LSTMLanguageModel, width=8, depth=1)},
    {"base": BLOCKS},
    {"base": partial(BLOCKS, positions="learned", tied=True, depth=2)},
    {"base": partial(NeuralNGram, order=6, embedding=4, width=8)},
]
SMALL["Classifier"] = [
    {"base": partial(BLOCKS, positions="learned"), "dropout": 0.1},
    {"base": partial(LSTMLanguageModel, width=8, depth=1), "pooling": "concat"},
    {"base": BLOCKS, "pooling": "mean", "lm_weight": 0.5},
    {"base": partial(LSTMLanguageModel, width=8, depth=1, dropout=0.5), "frozen": True},
    {"base": partial(BERT, width=8, depth=1, heads=2), "encoder": True},
    {"base": partial(BiLSTM, width=8, depth=1), "encoder": True, "pooling": "concat"},
]
SMALL["SkipGram"] = [{"width": 4}]
SMALL["Regressor"] = [{"base": partial(LSTMLanguageModel, width=8, depth=1), "pooling": "mean"}]
TEXTS = ("Classifier", "Regressor", "SkipGram")  # networks of one token, the class of their context
LABEL = Spec(3, (1,), kind="label")
NULLABLE = Spec(4, (1,), kind="label", null_id=3)
SMALL["LoRA"] = [
    {"base": partial(LSTMLanguageModel, width=8, depth=2), "rank": 2},
    {
        "base": partial(BLOCKS, tied=True, positions="learned"),
        "targets": ["head.weight", "blocks.*"],
        "scaling": "rslora",
    },
    {"base": partial(TransformerSeq2Seq, width=8, depth=1, heads=2), "targets": ["*"]},
    {"base": partial(LSTMSeq2Seq, width=6, embedding=5, attention="general"), "rank": 2},
    {"base": partial(PixelCNN, width=12, depth=1, head_width=12), "rank": 2, "alpha": 0.2},
]
SPECS = {  # V ** T sequences are enumerated
    "text": Spec(3, (5,)),
    "grey": Spec(2, (3, 4, 1)),
    "rgb": Spec(2, (2, 2, 3)),
    "pairs": Spec(3, (5,), context=Spec(4, (4,), pad_id=3)),
    "joint": Spec(4, (5,), context=Spec(4, (4,), pad_id=3), joint=True),
    "class": Spec(3, (1,), context=Spec(6, (4,), pad_id=5)),
    "class of both": Spec(3, (1,), context=Spec(6, (2, 4), pad_id=5)),
    "class of a label": Spec(3, (1,), context=LABEL),
    "class of choices": Spec(3, (1,), context=Spec(6, (3, 4), pad_id=5, kind="choices")),
    "masked": Spec(3, (5,), context=Spec(5, (5,), pad_id=4)),
}
MASKED = ("BERT", "BiLSTM", "TwoSidedNGram")  # networks that read a masked text, in SPECS["masked"]
WIDE = {  # 7 levels: -2/3 and its like are no exact binary fractions
    "text": Spec(5, (9,)),
    "grey": Spec(7, (4, 11, 1)),
    "rgb": Spec(7, (3, 11, 3)),
    "pairs": Spec(5, (9,), context=Spec(6, (7,), pad_id=5)),
    "joint": Spec(6, (9,), context=Spec(6, (7,), pad_id=5), joint=True),
    "class": Spec(5, (1,), context=Spec(9, (7,), pad_id=8)),
    "class of both": Spec(5, (1,), context=Spec(9, (2, 7), pad_id=8)),
    "class of a label": Spec(5, (1,), context=LABEL),
    "class of choices": Spec(5, (1,), context=Spec(9, (5, 7), pad_id=8, kind="choices")),
    "masked": Spec(5, (9,), context=Spec(7, (9,), pad_id=6)),
}


def networks() -> list[type[Autoregressor]]:
    """Every network of arlm.models and arlm.adapters."""
    found = []
    rooms = (arlm.models, arlm.adapters)
    for name in (f"{r.__name__}.{m.name}" for r in rooms for m in pkgutil.iter_modules(r.__path__)):
        module = importlib.import_module(name)
        found += [
            kind
            for kind in vars(module).values()
            if isinstance(kind, type)
            and issubclass(kind, Autoregressor)
            and not inspect.isabstract(kind)
            and kind.__module__ == module.__name__
            and not any(part.__module__ == module.__name__ for part in kind.__subclasses__())
        ]
    return found


for specs in (SPECS, WIDE):  # images with a class label too
    specs |= {f"{k}+label": replace(specs[k], context=LABEL) for k in ("text", "grey", "rgb")}
    # Only for networks that need a null class; the others have it in the law of contexts.
    specs["grey+null"] = replace(specs["grey"], context=NULLABLE)


def embeddings(net: Autoregressor) -> list[torch.nn.Module]:
    """The modules through which a network reads its row: its own, or those of the networks in it."""
    if hasattr(net, "embed"):
        return [net.embed]
    inner = (m for m in net.modules() if m is not net and isinstance(m, Autoregressor))
    return [module for part in inner for module in embeddings(part)]


def rebuilt(net: Autoregressor) -> Autoregressor:
    """A new network from the description of one."""
    described = checkpoints.describe(net, "spec")
    package = described["class_path"].partition(".")[0]
    return checkpoints.build(described, Autoregressor, net.spec, trusted=[package])


class Case(NamedTuple):
    """A network, its arguments and a kind of data that it accepts."""

    kind: type[Autoregressor]
    arguments: dict
    data: str

    def build(self, specs: dict[str, Spec] = SPECS) -> Autoregressor:
        """In float64 and eval mode, with lively weights."""
        return lively(self.kind(specs[self.data], **self.arguments))

    def __str__(self) -> str:
        values = [str(v) for v in self.arguments.values() if isinstance(v, (str, bool))]
        return "-".join([self.kind.__name__, *values, self.data])


def lively(net: Autoregressor) -> Autoregressor:
    """Weights so large that a leak or a lost tap shows; networks that count are fitted to random rows."""
    torch.manual_seed(0)
    if hasattr(net, "count"):
        pairs = torch.randint(net.spec.vocab_size, (2, 50, net.spec.length), generator=generator(3))
        net.count(pairs.amin(0))
    for parameter in net.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        torch.nn.init.normal_(parameter, std=min(0.4, 1.5 * fan_in**-0.5))
    return net.double().eval()


def cases() -> Iterator[Case]:
    """Every network with every kind of data that it does not refuse."""
    for kind in networks():
        for arguments in SMALL.get(kind.__name__, [{}]):
            for data, spec in SPECS.items():
                if data.startswith("class") != (kind.__name__ in TEXTS):
                    continue  # a row of one token has neither chunks nor a past
                if data.endswith("null") and "null" not in arguments.get("contexts", ()):
                    continue
                if data == "masked" and kind.__name__ not in MASKED:
                    continue  # for the others it is like "pairs"
                try:
                    kind(spec, **arguments)
                except UserError:
                    continue
                yield Case(kind, arguments, data)


def rows(net: Autoregressor, count: int = 6, seed: int = 1) -> Tensor:
    """Random tokens (count, T)."""
    return torch.randint(net.spec.vocab_size, (count, net.spec.length), generator=generator(seed))


def contexts(net: Autoregressor, count: int = 6) -> Tensor | None:
    """A class label (count, 1), a source or several texts (count, K * S) for each row, if the data has them."""
    context = net.spec.context
    if context is None:
        return None
    if context.kind == "label":
        return torch.arange(count)[:, None] % context.vocab_size
    sources = torch.randint(context.pad_id, (count, context.length), generator=generator(2))
    longest = context.shape[-1]
    texts = sources.view(count, -1, longest)
    lengths = 1 + (torch.arange(count)[:, None] + torch.arange(texts.shape[1])) % longest
    return texts.masked_fill(torch.arange(longest) >= lengths[..., None], context.pad_id).flatten(1)


def draws(net: Autoregressor) -> bool:
    """Whether rows of a network are drawn token by token; if not, `start` says so in one line."""
    try:
        net.start(6, net.spec.length, contexts(net))
    except UserError:
        assert type(net).__name__ in MASKED
        return False
    return True


# Each law takes a builder `build(specs)` and raises AssertionError.


FADED = 1e-13  # a change of float64 logits this small is about to be lost in rounding


def check_reach(
    influence: Tensor, expected: Tensor, what: str, where: str, rounded: bool = False
) -> None:
    """Compare which of T positions are reached with those that should be.

    Args:
        influence: (T,) at each position, 0 where nothing arrives.
        expected: (T,) bool.
        what, where: for the message.
        rounded: the influence is a difference of logits, which rounding may hide: a network that forgets,
            whose influence fades with the distance before it ends, is distinguished from one with a fault.
    """
    found = influence != 0
    leaks = (found & ~expected).nonzero().flatten().tolist()
    lost = (expected & ~found).nonzero().flatten().tolist()
    assert not leaks, f"LEAK: {what} reaches the {where} {leaks}, which it must not"
    if not lost:
        return
    before = float(influence[lost[0] - 1].detach())
    if rounded and before > 0 and bool((influence[lost[0] - 1 :] < FADED).all()):
        return
    raise AssertionError(
        f"LOST: {what} does not reach the {where} {lost}, and does not fade before. Either a connection is missing, or the network sees a part of the earlier tokens "
        "only: then say which, by a line in LAST or REACH of tests/reach.py"
    )


def law_causal_by_perturbation(build: Callable) -> None:
    """Changing x_t leaves the logits of x_0 .. x_t bit-equal and moves just those that should see it."""
    net = build(WIDE)
    tokens, reach = rows(net), reach_of(net)
    before = net(tokens, contexts(net))
    for t in range(net.spec.length):
        changed = tokens.clone()
        changed[:, t] = (tokens[:, t] + 1 + torch.arange(len(tokens)) % 4) % net.spec.vocab_size
        after = net(changed, contexts(net))
        change = (after - before).abs().where(after != before, 0).amax((0, 2))
        check_reach(change, reach[:, t], f"a change of token {t}", "logits", rounded=True)


def law_causal_by_gradient(build: Callable) -> None:
    """d logits[:, t] / d embed(x_s) is zero unless x_s should be seen, and not zero where it should."""
    net = build(WIDE)
    seen: list[Tensor] = []

    def keep(module, arguments, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    handles = [module.register_forward_hook(keep) for module in embeddings(net)]
    tokens = rows(net)
    logits = net(tokens, contexts(net))
    for handle in handles:
        handle.remove()
    shapes = [tuple(output.shape[:2]) for output in seen]
    assert set(shapes) == {tuple(tokens.shape)}, (
        f"`forward` has to call `self.embed` on whole rows {tuple(tokens.shape)}, since this law reads the "
        f"gradient of each token there; it was called on {shapes}"
    )
    reach = reach_of(net)
    weights = torch.randn(logits.shape[-1], dtype=logits.dtype)
    for t in range(net.spec.length):
        slopes = torch.autograd.grad(
            (logits[:, t] @ weights).sum(), seen, retain_graph=True, materialize_grads=True
        )
        touched = sum(s.abs().reshape(*s.shape[:2], -1).sum((0, 2)) for s in slopes)
        check_reach(touched, reach[t], f"the gradient of logits {t}", "tokens")


def law_exact_constants(build: Callable) -> None:
    """In float64 no buffer keeps a float32 rounding: each equals that of a network made in float64."""
    net = build(WIDE)
    torch.set_default_dtype(torch.float64)
    try:
        exact = dict(rebuilt(net).named_buffers())
    finally:
        torch.set_default_dtype(torch.float32)
    for name, buffer in net.named_buffers():
        wide = buffer.dtype == torch.float64 or not buffer.is_floating_point()
        assert wide, f"the buffer {name} stays {buffer.dtype} in float64"
        if not buffer.is_floating_point():
            continue
        gap = (buffer.double() - exact[name].double()).abs().max() if buffer.numel() else 0.0
        assert gap == 0, f"the buffer {name} is off by {gap:.1e} in float64: a float32 constant"


def law_normalised(build: Callable) -> None:
    """The probabilities of all V ** T sequences sum to 1."""
    net = build(SPECS)
    values = [range(net.spec.vocab_size)] * net.spec.length
    everything = torch.tensor(list(itertools.product(*values)))
    context = contexts(net)
    if context is not None:
        context = context[1:2].expand(len(everything), -1)
    log_prob = net.log_prob(everything, context)
    assert log_prob.shape == everything.shape
    total = log_prob.sum(-1).exp().sum()
    assert abs(total - 1) < 1e-10, f"probabilities sum to {total}"


def law_incremental_is_parallel(build: Callable) -> None:
    """start and advance give the logits of forward: one by one, in chunks, by the oracle, reordered."""
    net = build(SPECS)
    tokens, length = rows(net), net.spec.length
    context = contexts(net)
    with torch.no_grad():
        parallel = net(tokens, context)
    scored = generate(net, range(len(tokens)), forced=tokens, context=context).log_prob
    assert (scored - net.log_prob(tokens, context)).abs().max() < 1e-10, (
        "generate(forced) is not log_prob"
    )

    @torch.no_grad()
    def incremental(kind: type[Autoregressor], chunks: list[int]) -> Tensor:
        logits, state = kind.start(net, len(tokens), length, context)
        scores, done = [logits[:, None]], 0
        for size in chunks:
            chunk, state = kind.advance(net, tokens[:, done : done + size], state)
            scores.append(chunk)
            done += size
        return torch.cat(scores, dim=1)

    for kind, name in ((type(net), "own"), (Autoregressor, "oracle")):
        some = [1] * (length - 1), [length - 1], [1, length - 3, 1]
        for chunks in some if length > 1 else [[]]:
            gap = (incremental(kind, chunks) - parallel).abs().max()
            assert gap < 1e-10, f"{name} decoding in chunks {chunks} is off by {gap}"

    if length == 1:
        return
    half = length // 2
    for order in (torch.tensor([3, 0, 0, 5]), torch.tensor([3, 0, 0, 3])):
        with torch.no_grad():
            _, state = net.start(len(tokens), length, context)
            _, state = net.advance(tokens[:, :half], state)
            logits, _ = net.advance(tokens[order][:, half : half + 1], state[order])
        gap = (logits[:, 0] - parallel[order][:, half + 1]).abs().max()
        assert gap < 1e-10, f"reordered state gives logits that are off by {gap}"


def law_batch_invariant(build: Callable) -> None:
    """A row's log-probabilities depend neither on its neighbours nor on what follows."""
    net = build(SPECS)
    tokens, context = rows(net), contexts(net)
    together = net.log_prob(tokens, context)
    for i in range(len(tokens)):
        alone = net.log_prob(tokens[i : i + 1], context if context is None else context[i : i + 1])
        assert (alone[0] - together[i]).abs().max() < 1e-12, f"row {i} depends on its neighbours"
    if net.spec.length == 1:
        return
    shorter = net.log_prob(tokens[:, :-2], context)
    assert (shorter - together[:, :-2]).abs().max() < 1e-12, "a prefix depends on what follows it"


def law_stable(build: Callable) -> None:
    """The state dict keeps its keys; weights survive a file; every parameter learns."""
    net = build(SPECS)
    keys, tokens, context = list(net.state_dict()), rows(net), contexts(net)
    before = net.log_prob(tokens, context)
    parameters = list(net.named_parameters())
    if parameters:
        scores = net.train().score(tokens, context)
        loss = (scores.log_prob * torch.randn_like(before)).sum()
        (loss if scores.auxiliary is None else loss + scores.auxiliary.sum()).backward()
        net.eval()
    for name, parameter in parameters:
        if not parameter.requires_grad:  # frozen by the network itself, or not its own
            assert parameter.grad is None, f"{name} is frozen, but gets a gradient"
            continue
        learns = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert learns, f"{name} gets no gradient"
    if draws(net):
        generate(net, [0, 1], context=contexts(net, 2))
    net.compile(backend="eager")
    net.log_prob(tokens, context)
    assert list(net.state_dict()) == keys, "use changed the keys of the state dict"
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    copy = rebuilt(net).double().eval()
    assert list(copy.state_dict()) == keys, "the network is described wrongly"
    copy.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert torch.equal(copy.log_prob(tokens, context), before), (
        "a saved and loaded network scores differently"
    )


def law_deterministic(build: Callable) -> None:
    """One seed, one sample, whatever the batch or the strategy; the global random state is left alone."""
    net = build(SPECS)
    state = torch.get_rng_state()
    context = contexts(net, 3)
    tokens, log_prob = generate(net, [7, 8, 9], context=context)
    assert torch.equal(torch.get_rng_state(), state), "sampling moved the global random state"
    alone = generate(net, [8], context=context if context is None else context[1:2])
    assert torch.equal(alone.tokens[0], tokens[1]), "a sample depends on its batch"
    assert (net.log_prob(tokens, context) - log_prob).abs().max() < 1e-10, (
        "samples are scored wrongly"
    )
    parallel = fixed_point(net, [7, 8, 9], context=context)
    assert torch.equal(parallel.tokens, tokens), "fixed-point decoding draws other tokens"
    assert (parallel.log_prob - log_prob).abs().max() < 1e-10, "fixed points are scored wrongly"
    assert parallel.passes <= net.spec.length + 1
    many = generate(net, range(64), context=contexts(net, 64)).tokens
    different = len(many.unique(dim=0))
    possible = net.spec.vocab_size**net.spec.length
    assert different > min(8, possible / 2), (
        f"64 seeds give {different} different rows: either the seeds are not used, or the network is too sure "
        "of its tokens with the random weights of this suite; a line in SMALL of tests/laws.py makes it small"
    )


def law_conditional(build: Callable) -> None:
    """Another context changes a row's log-probabilities and no other row's; without one, a clear refusal.

    If labels have a null class, no context is that class.
    """
    net = build(SPECS)
    tokens, context = rows(net), contexts(net)
    if context is None:
        return
    before, changed = net.log_prob(tokens, context), context.clone()
    changed[2, 0] = (changed[2, 0] + 1) % 3
    moved = (net.log_prob(tokens, changed) != before).any(1).tolist()
    assert moved == [i == 2 for i in range(len(tokens))], f"a context moved the rows {moved}"
    if net.spec.context.null_id is None:
        try:
            net.log_prob(tokens)
        except UserError:
            pass
        else:
            raise AssertionError("a missing context is not refused")
    if net.spec.context.kind != "label":
        return
    nullable = {k: replace(s, context=s.context and NULLABLE) for k, s in SPECS.items()}
    net = build(nullable)
    null = torch.full_like(context, NULLABLE.null_id)
    gap = (net.log_prob(tokens) - net.log_prob(tokens, null)).abs().max()
    assert gap < 1e-12, f"no context is not the null class: off by {gap}"
    logits, _ = net.start(len(tokens), net.spec.length)
    gap = (log_softmax(logits) - log_softmax(net(tokens, null)[:, 0])).abs().max()
    assert gap < 1e-10, f"decoding without a context is not that of the null class: off by {gap}"


def law_source(build: Callable) -> None:
    """Padding of the source changes nothing; attention sums to 1 over real tokens; the source is read once."""
    net = build(SPECS)
    spec, tokens, context = net.spec.context, rows(net), contexts(net)
    if spec is None or spec.kind == "label":
        return
    texts = context.view(len(tokens), -1, spec.shape[-1])
    padded = torch.nn.functional.pad(texts, (0, 1), value=spec.pad_id).flatten(1)
    gap = (net.log_prob(tokens, padded) - net.log_prob(tokens, context)).abs().max()
    assert gap < 1e-12, f"padding of the source moves log-probabilities by {gap}"
    weights = net.attention_weights(tokens, padded) if hasattr(net, "attention_weights") else None
    if weights is not None:
        assert weights.shape == (*tokens.shape, padded.shape[1])
        assert (weights.sum(-1) - 1).abs().max() < 1e-12, "attention does not sum to 1"
        outside = weights.masked_select((padded == spec.pad_id)[:, None])
        assert not outside.any(), "attention falls on padding"
    if not draws(net):
        return
    reads = []
    inner = [m for m in net.modules() if isinstance(m, Autoregressor)]
    encoders = [m.embed_source for m in inner if hasattr(m, "embed_source")]
    handles = [m.register_forward_hook(lambda *_: reads.append(1)) for m in encoders]
    with torch.no_grad():
        _, state = net.start(len(tokens), net.spec.length, context)
        for t in range(net.spec.length - 1):
            _, state = net.advance(tokens[:, t : t + 1], state)
    for handle in handles:
        handle.remove()
    assert len(reads) == len(encoders), f"decoding reads the source {len(reads)} times"


def law_features(build: Callable) -> None:
    """Logits are a linear map of features, which depend on earlier tokens only."""
    net = build(SPECS)
    if not isinstance(net, FeatureAutoregressor):
        return
    tokens, context = rows(net), contexts(net)
    features = net.features(tokens, context)
    gap = (F.linear(features, *net.linear_map()) - net(tokens, context)).abs().max()
    assert gap < 1e-12, f"forward is not the linear map of features: off by {gap}"
    for t in range(net.spec.length):
        changed = tokens.clone()
        changed[:, t] = (tokens[:, t] + 1) % net.spec.vocab_size
        gap = (net.features(changed, context) - features)[:, : t + 1].abs().max()
        assert gap == 0, f"LEAK: token {t} reaches the features of itself or of an earlier one"


def law_blocks(build: Callable) -> None:
    """Scores and gradients are the same with all logits at once and in blocks of 4 tokens."""
    net = build(SPECS)
    if not isinstance(net, FeatureAutoregressor):
        return
    tokens, context = rows(net), contexts(net)
    half = net.spec.length // 2

    def scored() -> tuple[Tensor, ...]:
        scores = [net.score(tokens, context).log_prob]
        if hasattr(net, "score_chunk"):
            first, state = net.score_chunk(tokens[:, :half], None, context)
            second, _ = net.score_chunk(tokens[:, half:], state)
            scores += [first.log_prob, second.log_prob]
        values = torch.cat(scores, dim=1)
        weights = torch.randn(values.shape, generator=generator(4), dtype=values.dtype)
        return values, *torch.autograd.grad(
            (values * weights).sum(), [*net.parameters()], materialize_grads=True
        )

    at_once = scored()
    net.max_logits = 4 * net.spec.vocab_size
    names = ["scores", *(name for name, _ in net.named_parameters())]
    for name, one, other in zip(names, at_once, scored(), strict=True):
        gap = float(((one - other).abs().max() / one.abs().max()).detach())
        assert gap < 1e-12, f"blocks change {name} by {gap}"


# Laws that do not apply to a network, with the reason.
EXEMPT: dict[tuple[str, Callable[[Callable], None]], str] = {
    (name, law_causal_by_gradient): "counts have no gradient; changes of tokens prove it causal"
    for name in ("KneserNeyNGram", "Unigram", "Histogram")
} | {
    (
        "ContextAsPrefix",
        law_causal_by_gradient,
    ): "its base embeds source and row at once; the base obeys the law"
}
EXEMPT |= {
    (
        name,
        law_causal_by_gradient,
    ): "the row is one token, which no logits depend on; changes of it prove that"
    for name in TEXTS
}
# They ignore their row, and refuse to be drawn token by token.
EXEMPT |= {
    (name, law): why
    for name in MASKED
    for law, why in (
        (law_causal_by_gradient, "no token of the row is embedded"),
        (law_incremental_is_parallel, "rows are not drawn token by token"),
        (law_deterministic, "rows are not drawn token by token"),
    )
}
LAWS: list[Callable[[Callable], None]] = [
    law_causal_by_perturbation,
    law_causal_by_gradient,
    law_exact_constants,
    law_normalised,
    law_incremental_is_parallel,
    law_batch_invariant,
    law_stable,
    law_deterministic,
    law_conditional,
    law_source,
    law_features,
    law_blocks,
]


def assert_caught(mutant: type[Autoregressor], data: str, law: Callable) -> None:
    """A network with one fault, small as one of those that it is made of, breaks a law."""
    for arguments in SMALL[mutant.__bases__[0].__name__]:
        try:
            law(Case(mutant, dict(arguments), data).build)
        except AssertionError:
            return
    raise AssertionError(f"{law.__name__} does not catch {mutant.__name__}")
