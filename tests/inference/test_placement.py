"""`--device`, `--precision` and `--compile`: every network runs in every number format, and a missing device is refused."""

import laws
import pytest
import torch

from arlm.core import Batch, Spec, token_log_prob
from arlm.errors import UserError
from arlm.inference import placement
from arlm.inference.items import Item, score_items
from arlm.inference.placement import device_named, moved, place
from arlm.models.pixelcnnpp import PixelCNNPlusPlus
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.pixels.mixture import exact
from arlm.sampling import beam_search, generate, row_seeds

CPU = torch.device("cpu")
# Of log-probabilities under the laws' large weights: 8 and 11 bits of mantissa.
TOLERANCE = {"bf16": 0.3, "16": 0.05}
# Each network with each set of arguments, on the first kind of data that it takes.
CASES = list({f"{c.kind} {c.arguments}": c for c in reversed(list(laws.cases()))}.values())[::-1]


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_scores_and_samples_in_every_precision(case: laws.Case, precision: str) -> None:
    net = case.build()
    tokens, context = laws.rows(net), laws.contexts(net)
    with torch.inference_mode():
        exact = net.log_prob(tokens, context)
        log_prob = place(net, CPU, precision).log_prob(tokens, context)
    assert log_prob.dtype in (torch.float32, torch.float64)
    torch.testing.assert_close(log_prob.double(), exact, atol=TOLERANCE[precision], rtol=0)
    if type(net).__name__ in laws.MASKED:
        return
    drawn = generate(net, row_seeds(0, 6), context=context)
    with torch.inference_mode():
        scored = net.log_prob(drawn.tokens, context)
    # Rows that end early hold 0 after their end.
    scored = scored.double().where(drawn.log_prob != 0, 0.0)
    torch.testing.assert_close(drawn.log_prob, scored, atol=2 * TOLERANCE[precision], rtol=0)
    if len(net.spec.shape) == 1:
        found = beam_search(net, 6, context=context, beam=2)
        assert bool(found.log_prob.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixtures_have_exact_levels_in_half_precision(dtype: torch.dtype) -> None:
    for levels in (2, 17, 256):
        values = torch.linspace(-1, 1, levels)
        torch.testing.assert_close(exact(values.to(dtype), levels), values, atol=1e-6, rtol=0)
    net = PixelCNNPlusPlus(Spec(256, (2, 2, 1)), width=4, depth=2, mixtures=2).to(dtype).eval()
    with torch.no_grad():
        net.out.bias.copy_(torch.tensor([0, 0, -0.6, 0.7, -5, -5]))  # weights, means, narrow scales
    tokens = torch.randint(256, (20, 4))
    with torch.inference_mode():
        logits = net(tokens)
        scored = net.log_prob(tokens)
        total = logits.logsumexp(-1)
        _, state = net.start(20, 4)
        advanced, _ = net.advance(tokens[:, :3], state)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-3, rtol=0)
    torch.testing.assert_close(scored, token_log_prob(logits, tokens), atol=1e-3, rtol=0)
    drawn = advanced.logsumexp(-1)
    torch.testing.assert_close(drawn, torch.zeros_like(drawn), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", [TransformerLanguageModel, LSTMLanguageModel, PixelCNNPlusPlus])
def test_compiled_networks_draw_and_score_the_same(kind: type, monkeypatch) -> None:
    traced, calls = [], []
    compile = torch.compile

    def traced_only(function, dynamic):
        traced.append(function.__name__)
        compiled = compile(function, dynamic=dynamic, backend="eager")

        def call(*arguments):
            if not torch.compiler.is_compiling():
                calls.append(function.__name__)
            return compiled(*arguments)

        return call

    monkeypatch.setattr(placement.torch, "compile", traced_only)
    case = next(case for case in laws.cases() if case.kind is kind)
    net = case.build()
    tokens, context = laws.rows(net), laws.contexts(net)
    with torch.inference_mode():
        exact, names = net.log_prob(tokens, context), list(net.state_dict())
    if type(net).__name__ in laws.MASKED:
        return
    drawn = generate(net, row_seeds(0, 6), context=context)
    place(net, CPU, "64", compile=True)
    with torch.inference_mode():
        torch.testing.assert_close(net.log_prob(tokens, context), exact)
        if context is None:  # `arlm score` reads logits
            calls.clear()
            (scored,) = score_items(net, [Item("x", tokens[0])])
            assert calls == ["forward"]
            torch.testing.assert_close(-scored.nats, exact[0].double())
    assert torch.equal(generate(net, row_seeds(0, 6), context=context).tokens, drawn.tokens)
    assert list(net.state_dict()) == names
    assert ("advance" in traced) == (kind is not PixelCNNPlusPlus)


def test_devices_by_name(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_named("auto") == device_named("cpu") == CPU
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match=f"--device: '{name}' is missing; .* has 0 GPUs"):
            device_named(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_named(n).index for n in ("auto", "cuda", "cuda:0", "cuda:1")] == [0, 0, 0, 1]
    assert device_named("cpu") == CPU
    for name in ("gpu", "cuda:", "cuda:x", "CUDA", "cuda:2"):
        with pytest.raises(UserError, match=r"--device: '.+' .*(choose auto)"):
            device_named(name)


def test_batches_follow_the_network() -> None:
    batch = Batch(torch.zeros(1, 2).long(), torch.ones(1, 2).bool(), torch.ones(1, 2))
    there = moved(batch, torch.device("meta"))
    assert [part.device.type for part in there[:3]] == ["meta"] * 3
    assert there[3:] == (None, None, None)
