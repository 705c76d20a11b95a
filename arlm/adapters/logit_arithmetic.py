"""Weighted sums of the log-probabilities of several networks: guidance, ensembles, contrast, proxy-tuning.

References:
    | Classifier-Free Diffusion Guidance (Ho, Salimans, 2022), one network with and without its class
    | https://arxiv.org/abs/2207.12598
    | Stay on topic with Classifier-Free Guidance (Sanchez et al., 2023), for autoregressive networks
    | https://arxiv.org/abs/2306.17806
    | Contrastive Decoding: Open-ended Text Generation as Optimization (Li et al., 2023), with a plausibility mask
    | https://arxiv.org/abs/2210.15097
    | Tuning Language Models by Proxy (Liu et al., 2024) | https://arxiv.org/abs/2401.08565
    | Products of Experts (Hinton, 1999), the geometric mean | https://www.cs.toronto.edu/~hinton/absps/icann-99.pdf
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from arlm.adapters.vocabulary import check_tokens
from arlm.core import Autoregressor, Spec, log_softmax
from arlm.errors import UserError, require
from arlm.states import SHARED, State

Given = Literal["given", "null", "none"]
Run = tuple[int, bool]  # index of a network, and whether it gets the context


class Term(NamedTuple):
    """One summand: a network with one context."""

    weight: float
    net: int  # index into `nets`
    context: Given


@dataclass(frozen=True)
class ArithmeticState(State):
    """The states of the runs; two runs of one network have a state each."""

    states: tuple[State, ...]
    given: bool = field(metadata=SHARED)  # whether the rows have a context

    def rewind(self, counts: Tensor) -> Self:
        self._check_unused()
        # Of other objects with the same tensors, so that a refusal by one network consumes none.
        rewound = self._each(lambda entry, x: x, lambda state: replace(state).rewind(counts))
        self.used.append(True)
        return rewound


class LogitArithmetic(Autoregressor):
    """logits = sum_i weights_i log_softmax(logits_i).

    A term of weight 0 contributes exactly nothing, and its network is not run. Where a term of positive weight
    gives a token probability 0, so does the sum; under a negative weight, 0 counts as the smallest positive
    number. A single term of weight 1 gives the logits of its network as they are. Terms are added in their order,
    so that two equal ones of opposite weights, given first, leave nothing behind.

    With a plausibility of a, tokens of p < a max p under one term, the expert, have probability 0.

    Args:
        spec: of the data.
        nets: build the networks from the spec, or from the spec without its context for terms with "none".
        weights: one for each term.
        contexts: for each term: "given" passes the context on, "null" is the null class of a label, and "none"
            is for networks of data without a context; by default "given".
        indices: for each term, which of `nets` it runs, so that one network can appear in several terms; by
            default term i runs network i.
        plausibility: a, from 0, which masks nothing, to 1, which leaves the expert's likeliest token.
        expert: the term whose probabilities decide that; of a weight above 0.

    Shapes: tokens (B, T), context (B, S) or None -> logits (B, T, V).

    Raises:
        UserError: the lists differ in length, a network has other tokens than the data, or the labels of the
            data have no null class.
    """

    uses_context = True
    nets: Any  # nn.ModuleList has no element type

    def __init__(
        self,
        spec: Spec,
        nets: list[Callable[[Spec], Autoregressor]],
        weights: list[float],
        contexts: list[Given] | None = None,
        indices: list[int] | None = None,
        plausibility: float = 0.0,
        expert: int = 0,
    ) -> None:
        super().__init__(spec)
        contexts = ["given"] * len(weights) if contexts is None else contexts
        indices = list(range(len(nets))) if indices is None else indices
        for name, count in {"contexts": len(contexts), "nets or indices": len(indices)}.items():
            if count != len(weights):
                raise UserError(
                    f"model.net.weights: {len(weights)} weights for {count} {name}; "
                    "give one of each for every term"
                )
        self.terms = [
            Term(*term) for term in zip(map(float, weights), indices, contexts, strict=True)
        ]
        self._check_terms(len(nets))
        require(0 <= plausibility <= 1, "model.net.plausibility", plausibility, "choose 0 to 1")
        positive = [i for i, term in enumerate(self.terms) if term.weight > 0]
        mend = f"choose a term of positive weight: {', '.join(map(str, positive))}"
        require(not plausibility or expert in positive, "model.net.expert", expert, mend)
        self.plausibility, self.expert = plausibility, expert
        specs = [self._spec_of(index) for index in range(len(nets))]
        self.nets = nn.ModuleList(make(own) for make, own in zip(nets, specs, strict=True))
        for index, own in enumerate(specs):
            built = self.nets[index]
            check_tokens(built.spec, own, f"nets[{index}]")
            if built.spec != own:  # a checkpoint could not be loaded
                raise UserError(
                    f"model.net.nets[{index}]: it is for {built.spec}, not for {own}; "
                    "build it from the spec that its factory gets"
                )

    def _check_terms(self, nets: int) -> None:
        weights = [term.weight for term in self.terms]
        fits = all(map(math.isfinite, weights)) and any(weight > 0 for weight in weights)
        require(fits, "model.net.weights", weights, "give finite numbers, one of them above 0")
        for _, index, context in self.terms:
            require(0 <= index < nets, "model.net.indices", index, f"choose 0 to {nets - 1}")
            words = get_args(Given)
            require(context in words, "model.net.contexts", context, f"choose {', '.join(words)}")
            given = self.spec.context
            if context == "null" and (given is None or given.null_id is None):
                raise UserError(
                    "model.net.contexts: null given, but the data has no null class; "
                    "train with data.label_dropout"
                )
        unused = set(range(nets)) - {term.net for term in self.terms}
        require(not unused, "model.net.indices", sorted(unused), "use each of nets in a term")

    def _spec_of(self, index: int) -> Spec:
        """The spec of a network's own data."""
        without = {term.context == "none" for term in self.terms if term.net == index}
        if len(without) > 1:
            raise UserError(
                f"model.net.contexts: nets[{index}] is used both with and without a context; "
                "give two networks, or null for the context"
            )
        return replace(self.spec, context=None, joint=False) if True in without else self.spec

    @property
    def max_length(self) -> int | None:
        limits = [net.max_length for net in self.nets]
        return min((limit for limit in limits if limit is not None), default=None)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        runs = self._runs(context is not None)
        logits = [self.nets[net](tokens, context if given else None) for net, given in runs]
        return self._combined(logits, runs, context is not None)

    def start(self, batch: int, length: int, context: Tensor | None = None) -> tuple[Tensor, State]:
        runs = self._runs(context is not None)
        started = [
            self.nets[net].start(batch, length, context if given else None) for net, given in runs
        ]
        states = tuple(state for _, state in started)
        logits = self._combined([each for each, _ in started], runs, context is not None)
        return logits, ArithmeticState(states, context is not None, net=self.serial)

    def advance(
        self, tokens: Tensor, state: Any, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if not isinstance(state, ArithmeticState):
            return super().advance(tokens, state, lengths)
        state.consume(self)
        runs = self._runs(state.given)
        advanced = [
            self.nets[net].advance(tokens, own, lengths)
            for (net, _), own in zip(runs, state.states, strict=True)
        ]
        logits = self._combined([each for each, _ in advanced], runs, state.given)
        return logits, replace(state, states=tuple(own for _, own in advanced))

    def _runs(self, given: bool) -> dict[Run, float]:
        """The weight of each run; terms of one network with equal contexts are one run.

        Args:
            given: whether there is a context.
        """
        runs: dict[Run, float] = {}
        for weight, net, kind in self.terms:
            if weight:
                run = net, kind == "given" and given
                runs[run] = runs.get(run, 0.0) + weight
        masking = self._expert_run(given) if self.plausibility else None
        return {run: w for run, w in runs.items() if w or run == masking} or runs

    def _expert_run(self, given: bool) -> Run:
        """The run whose probabilities decide which tokens are plausible."""
        _, net, kind = self.terms[self.expert]
        return net, kind == "given" and given

    def _combined(self, logits: Sequence[Tensor], runs: dict[Run, float], given: bool) -> Tensor:
        """Logits (..., V) of each run -> their weighted sum, -inf where the expert finds a token implausible."""
        total = self._sum(logits, list(runs.values()))
        if not self.plausibility:
            return total
        expert = log_softmax(logits[list(runs).index(self._expert_run(given))])
        least = expert.amax(-1, keepdim=True) + math.log(self.plausibility)
        return total.masked_fill(expert < least, -math.inf)

    def _sum(self, logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Logits (..., V) of each run -> their weighted sum."""
        if list(weights) == [1.0]:
            return logits[0]
        total = torch.zeros_like(logits[0])
        for weight, each in zip(weights, logits, strict=True):
            scores = log_softmax(each)
            if weight < 0:
                smallest = math.log(torch.finfo(scores.dtype).tiny)
                scores = scores.masked_fill(scores == -math.inf, smallest)
            if weight:
                total = total + weight * scores
        return total


def guided(net: Autoregressor, scale: float) -> LogitArithmetic:
    """Classifier-free guidance: log p(x_t | x_<t) + scale (log p(x_t | x_<t, c) - log p(x_t | x_<t)).

    Args:
        net: a network of labels with a null class.
        scale: 1 is the plain conditional network, 0 the one without a class; more follows the class more.
    """
    context = net.spec.context
    if context is None or context.null_id is None:
        raise UserError(
            f"--guidance: {scale} given, but the network has no null class; train it with "
            "data.label_dropout, such as 0.1"
        )
    require(math.isfinite(scale), "--guidance", scale, "choose a finite number, such as 2")
    given: list[Given] = ["given", "null"]
    both = LogitArithmetic(net.spec, [lambda spec: net], [scale, 1 - scale], given, [0, 0])
    return both.train(net.training)


def contrastive(
    expert: Autoregressor, amateur: Autoregressor, strength: float = 0.5, plausibility: float = 0.1
) -> LogitArithmetic:
    """Contrastive decoding: (1 + b) log p_expert - b log p_amateur, of tokens of p_expert >= a max p_expert.

    It favours what the large network knows and the small one does not, over what both find likely.

    Args:
        expert: the large network.
        amateur: a small one of the same tokens.
        strength: b; 0 is the expert alone, but for the mask.
        plausibility: a, in [0, 1].
    """
    require(strength >= 0, "strength", strength, "choose at least 0")
    given = [lambda spec: expert, lambda spec: amateur]
    weights = [1 + strength, -strength]
    both = LogitArithmetic(expert.spec, given, weights, plausibility=plausibility)
    return both.train(expert.training)


def proxy_tuned(
    net: Autoregressor, tuned: Autoregressor, untuned: Autoregressor, scale: float = 1.0
) -> LogitArithmetic:
    """Proxy-tuning: log p + a (log p_tuned - log p_untuned), as if the large network had been tuned.

    Equal networks `tuned` and `untuned` leave the distribution of `net` exactly as it is.

    Args:
        net: the large network, not tuned.
        tuned, untuned: a small network of the same tokens, after and before its tuning.
        scale: a.
    """
    require(math.isfinite(scale), "scale", scale, "choose a finite number, such as 1")
    given = [lambda spec: tuned, lambda spec: untuned, lambda spec: net]
    return LogitArithmetic(net.spec, given, [scale, -scale, 1.0]).train(net.training)
