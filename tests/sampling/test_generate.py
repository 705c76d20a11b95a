"""The draw is the inverse CDF of fixed noise; forced tokens, ends and limits are kept."""

from __future__ import annotations

import pytest
import torch

from arlm.core import Autoregressor, Spec
from arlm.errors import UserError
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import Sampler, draw, fixed_point, generate, row_seeds, uniform_noise
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.top_k import TopK


class Fixed(Autoregressor):
    """Every token drawn from the same distribution."""

    def __init__(self, probabilities: list[float], eos_id: int | None = None, pad_id=None) -> None:
        super().__init__(Spec(len(probabilities), (50,), eos_id=eos_id, pad_id=pad_id))
        self.embed = torch.nn.Identity()
        self.logits = torch.nn.Parameter(torch.tensor(probabilities).double().log())

    def forward(self, tokens, context=None):
        return self.logits.expand(*tokens.shape, -1)


def test_draw_is_the_inverse_cdf() -> None:
    logits = torch.tensor([0.2, 0.0, 0.5, 0.3]).log().expand(6, -1)
    noise = torch.tensor([0.0, 0.1999, 0.2001, 0.6999, 0.7001, 1 - 2**-53]).double()
    assert draw(logits, noise).tolist() == [0, 0, 2, 2, 3, 3]


def test_draw_never_takes_a_masked_token() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(3, -1)
    noise = torch.tensor([0.0, 0.5, 1 - 2**-53]).double()
    assert draw(logits, noise).tolist() == [1, 1, 1]


def test_samples_follow_the_distribution() -> None:
    probabilities = [0.1, 0.6, 0.3]
    tokens = generate(Fixed(probabilities), row_seeds(0, 400)).tokens
    share = torch.bincount(tokens.flatten()).double() / tokens.numel()
    # 20,000 draws: standard deviation below 0.0035
    assert (share - torch.tensor(probabilities)).abs().max() < 0.015


def test_noise_is_a_function_of_row_and_position() -> None:
    noise = uniform_noise([3, 4], 40)
    assert torch.equal(uniform_noise([4], 11)[0], noise[1, :11])
    assert noise.min() >= 0
    assert noise.max() < 1


def test_row_seeds_do_not_depend_on_the_number_of_rows_nor_overlap() -> None:
    assert row_seeds(5, 3) == row_seeds(5, 10)[:3]
    seeds = [s for seed in range(50) for s in row_seeds(seed, 50)]
    assert len(set(seeds)) == 2500
    assert all(0 <= s < 2**63 for s in seeds)


def net() -> TransformerLanguageModel:
    torch.manual_seed(0)
    return TransformerLanguageModel(Spec(7, (12,)), width=8, depth=1, heads=2).double()


def test_forced_tokens_stay_and_free_ones_are_drawn() -> None:
    forced = torch.full((3, 12), -1)
    forced[:, :4] = torch.tensor([1, 2, 3, 4])
    forced[1, 7] = 6
    tokens, log_prob = generate(net(), [1, 2, 3], forced=forced)
    assert tokens[:, :4].tolist() == [[1, 2, 3, 4]] * 3
    assert tokens[1, 7] == 6
    assert (tokens >= 0).all()
    assert torch.allclose(log_prob, net().log_prob(tokens))


def test_ragged_prompts_equal_single_runs() -> None:
    forced = torch.full((2, 12), -1)
    forced[0, :6], forced[1, :2] = 3, 5
    together = generate(net(), [1, 2], forced=forced).tokens
    for i in range(2):
        assert torch.equal(
            generate(net(), [i + 1], forced=forced[i : i + 1]).tokens[0], together[i]
        )


def test_a_short_prompt_is_gone_on_from() -> None:
    forced = torch.tensor([[1, 2]])
    tokens = generate(net(), [0], 9, forced=forced).tokens
    assert tokens.shape == (1, 9)
    assert tokens[0, :2].tolist() == [1, 2]


def test_rows_end_at_eos_and_are_padded() -> None:
    fixed = Fixed([0.5, 0.3, 0.2, 1e-30], eos_id=2, pad_id=3)
    tokens, log_prob = generate(fixed, range(20))
    for row, nats in zip(tokens.tolist(), log_prob, strict=True):
        end = row.index(2)
        assert row[end + 1 :] == [3] * (49 - end)
        assert (nats[end + 1 :] == 0).all()
        assert (nats[: end + 1] < 0).all()


def test_log_prob_is_the_networks_own_with_any_processors() -> None:
    tokens, log_prob = generate(net(), [1, 2], processors=[TopK(2)])
    assert torch.allclose(log_prob, net().log_prob(tokens))


def test_greedy_ignores_the_seed() -> None:
    tokens = Sampler([Greedy()])(net(), range(5)).tokens
    assert (tokens == tokens[0]).all()


def test_training_mode_is_given_back_and_results_may_be_trained_on() -> None:
    model = LSTMLanguageModel(Spec(5, (6,)), width=4, depth=1, dropout=0.5).train()
    tokens = generate(model, [1, 2]).tokens
    assert model.training
    model.log_prob(tokens).sum().backward()
    assert model.head.weight.grad is not None


def test_progress_counts_every_position() -> None:
    done: list[int] = []
    generate(net(), [0], forced=torch.tensor([[1, 2, 3, -1, -1]]), progress=done.append)
    assert done == [3, 2]


def test_recurrent_networks_continue_past_their_window() -> None:
    model = LSTMLanguageModel(Spec(5, (6,)), width=4, depth=1)
    assert generate(model, [1], 40).tokens.shape == (1, 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, "n: 0 is out"),
        ({"seeds": [1], "length": 0}, "length: 0"),
        ({"seeds": [1], "length": 2, "forced": torch.ones(1, 3).long()}, "shorten the prompt"),
    ],
)
def test_bad_requests_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate(net(), **arguments)


def test_a_trainers_half_precision_does_not_reach_samples() -> None:
    net = PixelCNN(Spec(2, (6, 6, 1)), width=8, depth=2, head_width=8)
    for draw_rows in (generate, fixed_point):
        exact = draw_rows(net, row_seeds(0, 8))
        with torch.autocast("cpu", torch.bfloat16):
            inside = draw_rows(net, row_seeds(0, 8))
        assert torch.equal(inside.tokens, exact.tokens)
        assert torch.equal(inside.log_prob, exact.log_prob)


def test_fixed_points_keep_prompts_processors_and_ends() -> None:
    model = net()
    forced = torch.tensor([[1, 2, -1, 0]]).expand(5, -1)
    given = {"length": 8, "forced": forced, "processors": [TopK(2)]}
    steps, fixed = generate(model, range(5), **given), fixed_point(model, range(5), **given)
    assert torch.equal(fixed.tokens, steps.tokens)
    assert (fixed.log_prob - steps.log_prob).abs().max() < 1e-10
    ends = Fixed([0.5, 0.2, 0.3], eos_id=1, pad_id=2)
    steps, fixed = generate(ends, range(20)), fixed_point(ends, range(20))
    assert torch.equal(fixed.tokens, steps.tokens)
    assert (fixed.log_prob - steps.log_prob).abs().max() < 1e-10
    assert fixed.passes == 2  # one pass to guess, one to see that nothing changes


def test_fixed_points_report_what_has_settled() -> None:
    model = net()
    counted: list[int] = []
    fixed_point(model, range(3), progress=counted.append)
    assert sum(counted) == model.spec.length
