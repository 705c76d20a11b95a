"""Prompt tuning, prefix tuning and trained initial states, as options of networks and of `pretrained`."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import laws
import pytest
import torch

from arlm import checkpoints
from arlm.adapters import pretrained
from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import GRULanguageModel, LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel

SPEC = Spec(5, (12,))
SMALL = partial(TransformerLanguageModel, width=8, depth=2, heads=2)


def pair(**options: object) -> tuple[TransformerLanguageModel, TransformerLanguageModel]:
    """A network, and one with a prompt of 3 vectors and equal weights."""
    net, prompted = laws.lively(SMALL(SPEC, **options)), SMALL(SPEC, prompt_vectors=3, **options)
    prompted.double().eval().load_state_dict(prompted.state_dict() | net.state_dict())
    return net, prompted


@pytest.mark.parametrize(
    "options",
    [
        {"positions": "rotary"},
        {"positions": "alibi"},
        {"positions": "alibi", "sliding_window": 3, "windowed_blocks": "alternate"},
        {"positions": "rotary", "norm_first": False, "norm": "rms", "kv_heads": 1},
    ],
)
@torch.no_grad()
def test_a_prompt_is_what_stands_before_the_row(options: dict) -> None:
    """Vectors of tokens as a prompt give what the tokens themselves give, where positions are relative."""
    net, prompted = pair(**options)
    tokens = laws.rows(net, 1)
    inputs = torch.cat([net.start_vector[None], net.embed(tokens[0])])
    prompted.trained_prefix.vectors.copy_(inputs[:3])
    prompted.start_vector.copy_(inputs[3])
    expected = net(tokens)[:, 3:]
    assert (prompted(tokens[:, 3:]) - expected).abs().max() < 1e-12
    # The keys and values of a prompt, as a prefix, give the same.
    prefixed = SMALL(SPEC, prefix_vectors=3, **options).double().eval()
    prefixed.load_state_dict(
        prefixed.state_dict()
        | {k: v for k, v in prompted.state_dict().items() if "trained_prefix" not in k}
    )
    found = prompted._prefix()[0]
    prefixed.trained_prefix.keys.copy_(torch.cat([keys for keys, _ in found]))
    prefixed.trained_prefix.values.copy_(torch.cat([values for _, values in found]))
    assert (prefixed(tokens[:, 3:]) - expected).abs().max() < 1e-12


def test_a_state_keeps_the_prompt_that_it_was_begun_with() -> None:
    net = laws.lively(SMALL(SPEC, prompt_vectors=2))
    tokens = laws.rows(net, 3)
    with torch.no_grad():
        before = net(tokens)
        _, state = net.start(3, 12)
        net.trained_prefix.vectors.zero_()
        found, _ = net.advance(tokens[:, :-1], state[torch.tensor([0, 1, 2])])
    assert (found - before[:, 1:]).abs().max() < 1e-12


@pytest.mark.parametrize("kind", [LSTMLanguageModel, GRULanguageModel])
def test_a_trained_state_begins_at_zero_and_is_the_state_before_the_row(kind: type) -> None:
    net, trained = laws.lively(kind(SPEC, width=6)), kind(SPEC, width=6, trained_state=True)
    trained.double().eval().load_state_dict(trained.state_dict() | net.state_dict())
    tokens = laws.rows(net, 3)
    with torch.no_grad():
        assert torch.equal(trained(tokens), net(tokens))
        _, state = net.start(1, 12)
        _, state = net.advance(tokens[:1, :4], state)
        for own, layer in zip(trained.initial_state, state.layers, strict=True):
            own.copy_(torch.cat(layer))
        trained.start_vector.copy_(net.embed(tokens[0, 4]))
        expected = net(tokens[:1])[:, 5:]
        assert (trained(tokens[:1, 5:]) - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("net", "options"),
    [
        (SMALL, {"prompt_vectors": 3}),
        (SMALL, {"prefix_vectors": 3, "dropout": 0.1}),
        (partial(LSTMLanguageModel, width=6), {"trained_state": True}),
    ],
)
def test_pretrained_gets_options(monkeypatch: pytest.MonkeyPatch, net, options: dict) -> None:
    trained = laws.lively(net(SPEC)).float()
    loaded = checkpoints.Loaded(trained, None, {}, "")
    monkeypatch.setattr(sys.modules["arlm.adapters.pretrained"], "load", lambda *_: loaded)
    tuned = pretrained("runs/base", options=options)(SPEC)
    for name, weight in trained.state_dict().items():
        assert torch.equal(tuned.state_dict()[name], weight)
    assert len(tuned.state_dict()) > len(trained.state_dict())
    assert laws.rebuilt(tuned).state_dict().keys() == tuned.state_dict().keys()
    longer = pretrained("runs/base", options=options)(replace(SPEC, shape=(20,)))
    assert longer.spec.length == 20


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (
            SMALL,
            {"prompts": 3},
            "model.net.options.prompts: TransformerLanguageModel has no such opt",
        ),
        (SMALL, {"prompt_vectors": [3]}, r"model.net.options.prompt_vectors: \[3\] is no number"),
        (SMALL, {"width": 16}, "leave out some of options"),
        (SMALL, {"prompt_vectors": -1}, "model.net.prompt_vectors: -1 is out of range"),
        (
            SMALL,
            {"prompt_vectors": 1, "prefix_vectors": 2},
            "model.net.prefix_vectors: 2 given beside",
        ),
        (
            partial(PixelCNN, width=12, depth=1),
            {"prompt_vectors": 3},
            "model.net.options.prompt_vectors: PixelCNN has no such option; it has width",
        ),
    ],
)
def test_wrong_options_are_one_line(
    monkeypatch: pytest.MonkeyPatch, net, options: dict, message: str
) -> None:
    spec = SPEC if net is SMALL else laws.SPECS["grey"]
    loaded = checkpoints.Loaded(net(spec), None, {}, "")
    monkeypatch.setattr(sys.modules["arlm.adapters.pretrained"], "load", lambda *_: loaded)
    with pytest.raises(UserError, match=message):
        pretrained("runs/base", options=options)(spec)
