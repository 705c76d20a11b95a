"""Classifiers and regressors: what they read, what they train, and the objective that they minimise."""

from __future__ import annotations

import math
from functools import partial

import laws
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from arlm.adapters import Classifier, LoRA, Regressor
from arlm.core import Autoregressor, Batch, Spec, log_softmax
from arlm.domains import ClassificationDomain, RegressionDomain
from arlm.errors import UserError
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.tokenizers import ByteTokenizer, SentenceTokenizer
from arlm.training.objectives import Classification, Likelihood
from arlm.training.optimizers import parameter_groups

LSTM = partial(LSTMLanguageModel, width=8, depth=1)
BLOCKS = partial(TransformerLanguageModel, width=8, depth=1, heads=2)
WORDS = SentenceTokenizer(["a", "b", "c", "d", "e"])
PAD = 5
TEXTS = Spec(3, (1,), context=Spec(6, (4,), pad_id=PAD))


def built(spec: Spec = TEXTS, kind: type[Classifier] = Classifier, **arguments) -> Classifier:
    return laws.lively(kind(spec, **({"base": LSTM} | arguments)))


def spec_of(domain, length: int = 12) -> Spec:
    return Spec(domain.vocab_size, (1,), context=domain.context_spec(length), unit="label")


@pytest.mark.parametrize("pooling", ["last", "mean", "concat"])
def test_pooled_features_are_those_of_each_text_alone(pooling: str) -> None:
    net = built(pooling=pooling)
    context = laws.contexts(net)
    found = net.pooled(context)[:, 0]
    for row, pooled in zip(context, found, strict=True):
        text = row[row != PAD]
        states = net.base.features(torch.cat([text, text[:1]])[None])[0, 1:]
        parts = {"last": [states[-1]], "mean": [states.mean(0)]}
        parts["concat"] = [states[-1], states.amax(0), states.mean(0)]
        assert (pooled - torch.cat(parts[pooling])).abs().max() < 1e-12


class LastColumn(Classifier):
    """Pools the state of the last column, padding or not."""

    def _pool(self, states: Tensor, there: Tensor) -> Tensor:
        return super()._pool(states, torch.ones_like(there))


def test_a_state_that_is_read_at_padding_is_caught() -> None:
    laws.assert_caught(LastColumn, "class", laws.law_batch_invariant)


@pytest.mark.parametrize("base", [LSTM, BLOCKS, partial(LSTM, tied=True)])
def test_without_a_weight_the_language_models_head_has_no_gradient(base) -> None:
    net = built(base=base).train()
    batch = whole(net)
    prepared(net).loss(net, batch).sum.backward()
    own = net.base.head
    tied = own.weight is net.base.embed.weight
    for parameter in own.parameters():
        if not (tied and parameter is own.weight):
            assert parameter.grad is None
            assert not parameter.requires_grad
    weighted = built(base=base, lm_weight=0.5).train()
    prepared(weighted).loss(weighted, batch).sum.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in weighted.base.parameters())


def whole(net: Autoregressor) -> Batch:
    tokens = laws.rows(net)
    return Batch(tokens, torch.ones_like(tokens).bool(), tokens.double(), laws.contexts(net))


def prepared(net: Autoregressor) -> Classification:
    objective = Classification()
    objective.prepare(net)
    return objective


def test_the_loss_is_the_nats_of_the_class_and_weighted_nats_of_the_text() -> None:
    net = built(lm_weight=0.25).train()
    batch = whole(net)
    expected = 0.0
    for row, token in zip(batch.context, batch.tokens[:, 0], strict=True):
        text = row[row != PAD][None]
        nats = -net.base.log_prob(text).sum()
        expected += 0.25 * nats - log_softmax(net(token[None, None], row[None]))[0, 0, token]
    terms = prepared(net).loss(net, batch)
    assert (terms.sum - expected).abs() < 1e-10
    objective = Likelihood()
    objective.prepare(net)
    assert (objective.loss(net, batch).sum - expected).abs() < 1e-10
    evaluated = prepared(net.eval()).loss(net, batch)  # no figure has the text's nats
    assert abs(float(evaluated.sum.detach()) - float(evaluated.figures["nats"])) < 1e-10
    logits = net(batch.tokens, batch.context)[:, 0]
    right = int((logits.argmax(-1) == batch.tokens[:, 0]).sum())
    figures = prepared(net).figures({"nats": 6.0, "correct": right, "count": 6, "sum": 0}, "label")
    assert figures == pytest.approx(
        {"nll": 1.0, "accuracy": right / 6, "bits_per_label": 1 / math.log(2)}
    )
    assert int(terms.figures["correct"]) == right


def test_a_frozen_trunk_is_logistic_regression_on_its_features() -> None:
    net = built(pooling="concat")
    net.base.requires_grad_(False)
    texts = torch.randint(PAD, (60, 4), generator=torch.Generator().manual_seed(5))
    labels = (texts[:, 0] + texts[:, 2]) % 3
    batch = Batch(labels[:, None], torch.ones(60, 1).bool(), torch.ones(60, 1), texts)
    objective, penalty = prepared(net), 1.0
    optimizer = torch.optim.LBFGS(
        net.head.parameters(), max_iter=2000, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective.loss(net, batch).sum + penalty / 2 * net.head.weight.square().sum()
        loss.backward()
        return loss

    before = {name: p.clone() for name, p in net.base.named_parameters()}
    optimizer.step(closure)
    with torch.no_grad():
        features = net.pooled(texts)[:, 0].numpy()
        ours = log_softmax(net(batch.tokens, texts))[:, 0].exp().numpy()
    reference = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=5000).fit(features, labels)
    assert np.abs(reference.predict_proba(features) - ours).max() < 1e-4
    assert np.abs(reference.coef_ - net.head.weight.detach().numpy()).max() < 1e-4
    assert all(torch.equal(p, before[name]) for name, p in net.base.named_parameters())


def test_a_frozen_base_never_moves() -> None:
    net = built(base=partial(LSTM, dropout=0.5), frozen=True).train()
    assert not net.base.training
    before = {name: p.clone() for name, p in net.named_parameters()}
    batch, objective = whole(net), prepared(net)
    optimizer = torch.optim.AdamW(parameter_groups(net), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        objective.loss(net, batch).sum.backward()
        optimizer.step()
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize("base", [LSTM, BLOCKS])
def test_both_orders_give_an_exactly_symmetric_similarity(base) -> None:
    domain = ClassificationDomain(WORDS, ["no", "yes"], "similarity")
    net = built(spec_of(domain), base=base, pooling="concat")
    pairs = [("a b", "c"), ("d", "e a a b"), ("c c", "b")]
    tokens = torch.zeros(1, 1, dtype=torch.long)
    for first, second in pairs:
        one = domain.contexts([domain.encode_texts([first, second])])
        other = domain.contexts([domain.encode_texts([second, first])])
        assert not torch.equal(one, other)
        assert torch.equal(net(tokens, one), net(tokens, other))
    single = ClassificationDomain(WORDS, ["no", "yes"], "entailment")
    ordered = built(spec_of(single), base=base)
    given = [single.contexts([single.encode_texts(pair)]) for pair in (("a b", "c"), ("c", "a b"))]
    assert not torch.equal(*(ordered(tokens, context) for context in given))


def test_permuted_choices_have_permuted_probabilities() -> None:
    domain = ClassificationDomain(WORDS, ["0", "1", "2"], "choice")
    net = built(spec_of(domain), base=BLOCKS, pooling="mean")
    tokens = torch.zeros(1, 1, dtype=torch.long)
    choices = ["b", "c d", "e"]
    known = net(tokens, domain.contexts([domain.encode_texts(["a", *choices])]))[0, 0]
    for order in ([1, 0, 2], [2, 0, 1]):
        changed = domain.encode_texts(["a", *(choices[i] for i in order)])
        found = net(tokens, domain.contexts([changed]))[0, 0]
        assert (log_softmax(found) - log_softmax(known)[order]).abs().max() < 1e-12


@pytest.mark.parametrize("pooling", ["last", "mean", "concat"])
def test_a_choice_without_tokens_has_probability_0_and_no_gradient_is_nan(pooling: str) -> None:
    spec = Spec(3, (1,), context=Spec(6, (3, 4), pad_id=PAD, kind="choices"))
    net = built(spec, pooling=pooling)
    context = torch.tensor([[1, 2, PAD, PAD, *[PAD] * 4, 3, PAD, PAD, PAD]])
    logits = net(torch.zeros(1, 1, dtype=torch.long), context)[0, 0]
    assert logits[1] == -math.inf
    assert torch.isfinite(logits[[0, 2]]).all()
    log_softmax(logits)[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_a_regressor_is_a_discretised_logistic() -> None:
    spec = Spec(7, (1,), context=TEXTS.context)
    net = built(spec, Regressor)
    context = laws.contexts(net)
    found = log_softmax(net(laws.rows(net), context))[:, 0].exp()
    outputs = net.head(net.pooled(context)[:, 0])
    mean, scale = 0.5 + outputs[:, :1], (outputs[:, 1:] - 1.5).exp()
    edges = torch.arange(1, 7) / 7
    below = torch.cat(
        [torch.zeros(6, 1), torch.sigmoid((edges.double() - mean) / scale), torch.ones(6, 1)], 1
    )
    assert (found - below.diff(dim=1)).abs().max() < 1e-7
    domain = RegressionDomain(WORDS, -1.0, 2.5, 7)
    assert domain.encode("-1.0").item() == 0
    assert domain.encode(2.5).item() == 6
    assert domain.decode(torch.tensor([2])) == pytest.approx(0.25)
    assert (domain.values.diff() - 0.5).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        (Spec(3, (5,)), {}, "Classifier needs rows of one token, the class, with texts as context"),
        (TEXTS, {"base": partial(PixelCNN, width=12, depth=1, head_width=12)}, "model.net"),
        (
            TEXTS,
            {"pooling": "max"},
            "model.net.pooling: max is out of range; choose last, mean, concat",
        ),
        (TEXTS, {"lm_weight": -1.0}, "model.net.lm_weight: -1.0 is out of range; choose 0 or more"),
        (TEXTS, {"encoder": True}, "model.net"),
        (
            Spec(4, (1,), context=Spec(6, (3, 4), pad_id=PAD, kind="choices")),
            {},
            "model.net: 3 choices for 4 classes; give one class for each",
        ),
    ],
)
def test_refusals(spec: Spec, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        Classifier(spec, **({"base": LSTM} | arguments))


def test_forms_of_input() -> None:
    def shown(form: str, *texts: str, most: int | None = None) -> list[list[int]]:
        classes = ["0", "1", "2"] if form == "choice" else ["no", "yes"]
        domain = ClassificationDomain(ByteTokenizer(), classes, form)
        return domain.encode_texts(texts, most).tolist()

    a, b, c, d = map(ord, "abcd")
    delimiter, extract, pad = 256, 257, 258
    assert shown("classification", "ab") == [[a, b, extract]]
    assert shown("entailment", "ab", "c") == [[a, b, delimiter, c, extract]]
    both = [[a, b, delimiter, c, extract], [c, delimiter, a, b, extract]]
    assert shown("similarity", "ab", "c") == both
    choices = [[a, delimiter, b, extract, pad], [a, delimiter, c, d, extract]]
    assert shown("choice", "a", "b", "cd", "d")[:2] == choices
    assert shown("classification", "abcd", most=3) == [[a, b, extract]]
    assert shown("entailment", "abcd", "c", most=5) == [[a, b, delimiter, c, extract]]
    with pytest.raises(UserError, match="1 given; an example of entailment has 2"):
        shown("entailment", "ab")


def test_a_regressor_in_bfloat16_tells_all_bins_apart() -> None:
    spec = Spec(600, (1,), context=TEXTS.context)
    net = built(spec, Regressor)
    context = laws.contexts(net)
    expected = log_softmax(net(laws.rows(net), context))
    found = log_softmax(net.bfloat16()(laws.rows(net), context))
    assert torch.isfinite(found).all()
    assert found.exp().diff(dim=-1)[..., 1:-1].abs().min() > 0
    assert (found.exp() - expected.exp()).abs().max() < 0.01


def test_lora_within_a_classifier_may_model_the_text() -> None:
    adapted = partial(LoRA, base=BLOCKS)
    net = built(base=adapted, lm_weight=0.5).train()
    batch = whole(net)
    prepared(net).loss(net, batch).sum.backward()
    assert all(p.grad is not None for p in net.base.low_rank.parameters())


@pytest.mark.parametrize("base", [LSTM, BLOCKS])
def test_a_text_may_have_one_token(base) -> None:
    net = built(Spec(3, (1,), context=Spec(6, (1,), pad_id=PAD)), base=base)
    assert net(laws.rows(net), laws.contexts(net)).shape == (len(laws.rows(net)), 1, 3)
