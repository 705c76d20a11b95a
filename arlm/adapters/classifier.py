"""Classifiers of texts: a network of text, its features pooled, and a linear map to the classes.

    context   the film was fine <extract>        one text, or several side by side (B, K * S)
                  |  base.features                 or base.context_features of an encoder
    features   h1   h2   h3  h4  h5 (B, S, F)
                  |  pooled: the last, the mean, or the last, maximum and mean
    logits     negative  positive                 the one token of the row is the class

References:
    | Improving Language Understanding by Generative Pre-Training (Radford et al., 2018), sections 3.2 and 3.3: the
      input forms, and the loss of the language model beside that of the classes
    | https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf
    | Universal Language Model Fine-tuning for Text Classification (Howard, Ruder, 2018), section 3.3, pooling "concat"
    | https://arxiv.org/abs/1801.06146
    | Semi-supervised Sequence Learning (Dai, Le, 2015), a classifier that starts from a language model
    | https://arxiv.org/abs/1511.01432
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from arlm.core import Autoregressor, Scores, Spec, device_of, token_log_prob
from arlm.errors import UserError, require

Pooling = Literal["last", "mean", "concat"]
PARTS = {"last": 1, "mean": 1, "concat": 3}  # times the features of the base
MARKS = 2  # tokens that follow the tokenizer's: <delimiter> and <extract>


class Classifier(Autoregressor):
    """p(class | texts): the row is one token, the class, and the texts are its context.

    A causal base reads each text as its row, and the features are those after each of the text's tokens. A base that
    is an encoder reads it as its context. Several texts of a row, of a context of shape (K, S), are read each by
    itself: their features are added (both orders of a pair whose order means nothing), or, where the context is
    "choices", each text gets one logit, and the softmax is over the texts. A choice without tokens has probability 0.

    Parameters of the base that take no part, such as its head where `lm_weight` is 0, are not trained.

    Args:
        spec: of the data: rows of one token, with a sequence or with choices as their context.
        base: builds the network of text, such as `pretrained`; its rows are one token longer than a text, since
            `features` scores the token after the last one.
        pooling: "last" is the state after the text; "mean" that of all tokens; "concat" is the last, the maximum
            and the mean, side by side (ULMFiT).
        lm_weight: what the nats of the text under the base's own head count in training, beside those of the class:
            GPT-1 has 0.5 of their mean over the tokens of a row; here it is their sum.
        dropout: probability of zeroing a pooled feature, in [0, 1).
        encoder: the base reads the text as its context, by `context_features`, such as BERT.
        frozen: only the head is trained: logistic regression on the features of the base, which has no dropout then.

    Shapes: tokens (B, 1), context (B, K * S) padded -> logits (B, 1, V).

    Raises:
        UserError: the data has other rows or contexts, or the base offers no features.
    """

    uses_context = True
    outputs: int | None = None  # of the head; None is the number of classes

    def __init__(
        self,
        spec: Spec,
        base: Callable[[Spec], Autoregressor],
        pooling: Pooling = "last",
        lm_weight: float = 0.0,
        dropout: float = 0.0,
        encoder: bool = False,
        frozen: bool = False,
    ) -> None:
        super().__init__(spec)
        context = self._check_spec(spec)
        fits = math.isfinite(lm_weight) and lm_weight >= 0
        require(fits, "model.net.lm_weight", lm_weight, "choose 0 or more")
        require(0 <= dropout < 1, "model.net.dropout", dropout, "choose from 0 to below 1")
        names = get_args(Pooling)
        require(pooling in names, "model.net.pooling", pooling, f"choose {', '.join(names)}")
        mend = "choose 0: an encoder does not model its context"
        require(not (encoder and lm_weight), "model.net.lm_weight", lm_weight, mend)
        mend = "choose 0: nothing of the base is trained"
        require(not (frozen and lm_weight), "model.net.lm_weight", lm_weight, mend)
        self.frozen = frozen
        self.pooling, self.lm_weight, self.encoder = pooling, lm_weight, encoder
        self.several = len(context.shape) > 1
        self.chooses = context.kind == "choices"
        # Typed as Any, since features are offered by networks of several rooms.
        self.base: Any = base(base_spec(context, encoder))
        method = "context_features" if encoder else "features"
        if not hasattr(self.base, method):
            other = (
                "omit model.net.encoder" if encoder else "set model.net.encoder true if it encodes"
            )
            raise UserError(
                f"model.net.base: {type(self.base).__name__} has no `{method}`; "
                f"{other}, or choose a network such as arlm.models.transformer.TransformerLanguageModel"
            )
        width = self._freeze_unused(min(2, context.shape[-1]))
        if frozen:
            self.base.requires_grad_(False)
            self.base.eval()
        outputs = 1 if self.chooses else self.outputs or spec.vocab_size
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width * PARTS[pooling], outputs)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def _check_spec(self, spec: Spec) -> Spec:
        """The context's spec; raises a UserError if the data is not labelled text."""
        context = spec.context
        fits = context is not None and context.kind != "label" and context.pad_id is not None
        if context is None or not fits or spec.length != 1 or len(context.shape) > 2:
            raise UserError(
                f"model.net: {type(self).__name__} needs rows of one token, the class, with texts as context; "
                "choose data such as configs/data/sst2.yaml"
            )
        if context.kind == "choices" and context.shape[0] != spec.vocab_size:
            raise UserError(
                f"model.net: {context.shape[0]} choices for {spec.vocab_size} classes; give one class for each"
            )
        return context

    def _freeze_unused(self, length: int) -> int:
        """Freeze the base's parameters that have no part in the logits or the loss; returns its width, F.

        Args:
            length: tokens of the text that tells which have one.
        """
        training = self.base.training
        self.base.eval()  # without dropout, which would draw random numbers
        tokens = torch.zeros(1, length, dtype=torch.long, device=device_of(self.base))
        with torch.enable_grad():
            states, nats = self._read(tokens, tokens >= 0, bool(self.lm_weight))
            total = states.sum() if nats is None else states.sum() + nats.sum()
            trained = [p for p in self.base.parameters() if p.requires_grad]
            if trained and total.requires_grad:
                slopes = torch.autograd.grad(total, trained, allow_unused=True)
                for parameter, slope in zip(trained, slopes, strict=True):
                    parameter.requires_grad_(slope is not None)
        self.base.train(training)
        return states.shape[-1]

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of everything but a frozen base."""
        super().train(mode)
        if self.frozen:
            self.base.eval()
        return self

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self._logits(context, False)[0][:, None][:, : tokens.shape[1]]

    def logits_and_auxiliary(
        self, tokens: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, 1, V), and what training adds to the loss of each row, (B, 1) or None, from one pass."""
        logits, nats = self._logits(context, bool(self.training and self.lm_weight))
        auxiliary = None if nats is None else self.lm_weight * nats[:, None]
        return logits[:, None][:, : tokens.shape[1]], auxiliary

    def score(self, tokens: Tensor, context: Tensor | None = None) -> Scores:
        logits, auxiliary = self.logits_and_auxiliary(tokens, context)
        return Scores(token_log_prob(logits, tokens), auxiliary)

    def pooled(self, context: Tensor | None) -> Tensor:
        """Pooled features of each text, (B, K, F'): what the head reads; K is 1 where a row has one text."""
        return self._pooled(context, False)[0]

    def _pooled(self, context: Tensor | None, model: bool) -> tuple[Tensor, Tensor | None, Tensor]:
        """Pooled features (B, K, F'), nats of the texts (B,) if `model`, and whether each has tokens, (B, K)."""
        texts, there = self._texts(context)
        states, nats = self._read(texts.flatten(0, 1), there.flatten(0, 1), model)
        shape = there.shape[:2]
        pooled = self._pool(states, there.flatten(0, 1)).view(*shape, -1)
        total = None if nats is None else nats.view(*shape, -1).sum((1, 2))
        return pooled, total, there.any(-1)

    def _texts(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Texts (B, K, S), as short as the longest of them, and which of their tokens are no padding."""
        if context is None:
            raise UserError("context: none given, but the network classifies texts; give (B, S)")
        spec: Any = self.spec.context
        texts = context.unflatten(1, (spec.shape[0], -1)) if self.several else context[:, None]
        there = texts != spec.pad_id
        longest = max(1, int(there.sum(-1).max())) if there.numel() else 1
        return texts[..., :longest], there[..., :longest]

    def _read(self, texts: Tensor, there: Tensor, model: bool) -> tuple[Tensor, Tensor | None]:
        """States (N, S, F) after each token of texts (N, S); with `model` their nats, (N, S), too."""
        if self.encoder:
            filled = there.clone()
            filled[:, 0] = True  # a choice without tokens has one that is not counted
            ids = texts.where(there, 0).where(filled, self.base.spec.context.pad_id)
            return self.base.context_features(ids), None
        ids = texts.where(there, 0)  # what is padding is read by nothing that counts
        features = self.base.features(nn.functional.pad(ids, (0, 1)))
        if not model:
            return features[:, 1:], None
        if not hasattr(self.base, "features_log_prob"):
            raise UserError(
                f"model.net.lm_weight: {self.lm_weight} given, but {type(self.base).__name__} has no head for the "
                "tokens of a text; choose 0"
            )
        log_prob = self.base.features_log_prob(features[:, :-1].contiguous(), ids)
        return features[:, 1:], -log_prob.where(there, 0)

    def _pool(self, states: Tensor, there: Tensor) -> Tensor:
        """States (N, S, F) of which some are `there` (N, S) -> (N, F')."""
        lengths = there.sum(-1).clamp(min=1)  # a text without tokens has one that is not read
        last = states[torch.arange(len(states), device=states.device), lengths - 1]
        if self.pooling == "last":
            return last
        read = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        mean = states.where(read[..., None], 0).sum(1) / lengths[:, None]
        if self.pooling == "mean":
            return mean
        most = states.masked_fill(~read[..., None], -math.inf).amax(1)
        return torch.cat([last, most, mean], dim=-1)

    def _logits(self, context: Tensor | None, model: bool) -> tuple[Tensor, Tensor | None]:
        """Logits (B, V), and with `model` the nats of the texts, (B,)."""
        pooled, nats, there = self._pooled(context, model)
        pooled = self.drop(pooled)
        if not self.chooses:
            return self.classes(self.head(pooled.sum(1))), nats
        logits = self.head(pooled).squeeze(-1)
        absent = ~there & there.any(1, keepdim=True)
        return logits.masked_fill(absent, -math.inf), nats

    def classes(self, outputs: Tensor) -> Tensor:
        """Outputs of the head (B, O) -> logits (B, V)."""
        return outputs


def base_spec(context: Spec, encoder: bool) -> Spec:
    """The spec of the base of a network that reads texts of `context`.

    Args:
        context: of rows of up to S tokens, the padding being the last of its vocabulary.
        encoder: the base reads texts as its context.

    Returns: rows of S + 1 tokens without the padding, for a causal base; rows and contexts of S for an encoder.
    """
    length = context.shape[-1]
    one = replace(context, vocab_size=context.vocab_size - 1, shape=(length + 1,), pad_id=None)
    one = replace(one, kind="sequence")
    if not encoder:
        return one
    texts = replace(context, shape=(length,), kind="sequence")
    return replace(one, shape=(length,), context=texts)
