"""What all networks of pixels share: intensities in, a label beside them, and sampling pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from arlm.core import Autoregressor, Spec, State, device_of, token_log_prob
from arlm.errors import UserError
from arlm.layers.masked_conv import MaskedConv2d
from arlm.programs.native_backend import NativePlayer, side_by_side, wanted
from arlm.programs.program import Code, Map, Part, Tape
from arlm.programs.torch_backend import Player

RowStep = Callable[[Tensor, int], object] | None


class Intensity(nn.Module):
    """Level v of V -> a number in [-1, 1]; zero padding around the image is then mid-grey. (...) -> (...)."""

    values: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.linspace(-1, 1, levels), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.values[tokens]


class Head(nn.Module):
    """Two 1x1 layers of mask B, each after a relu: features -> V logits for each channel.

    Shapes: (B, features, H, W) -> (B, C * V, H, W).
    """

    def __init__(self, features: int, width: int, spec: Spec) -> None:
        super().__init__()
        channels = spec.shape[2]
        self.hidden = MaskedConv2d("B", features, width, 1, channels)
        self.out = MaskedConv2d("B", width, channels * spec.vocab_size, 1, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.hidden(F.relu(x))))

    def at_pixels(self, x: Tensor) -> Tensor:
        """The same on features that come last, (..., features) -> (..., C * V)."""
        return self.out.at_pixels(F.relu(self.hidden.at_pixels(F.relu(x))))

    def plan(self, tape: Tape) -> Callable[[Part], None]:
        """Make room on the tape; call the result for each group."""
        width, features = self.hidden.weight.shape[:2]
        rectified, hidden = tape.cell(features), tape.cell(width)
        tape.out = tape.cell(len(self.out.bias) // tape.groups)

        def record(x: Part) -> None:
            tape.add(Code.RELU, tape.mine(x), tape.mine(rectified))
            tape.linear(tape.seen(rectified), tape.mine(dense(self.hidden)), tape.mine(hidden))
            tape.add(Code.RELU, tape.mine(hidden), tape.mine(hidden))
            tape.linear(tape.seen(hidden), tape.mine(dense(self.out)), tape.out)

        return record


@dataclass(frozen=True)
class Plan:
    """A network made ready for sampling: weights folded, places given out."""

    tape: Tape
    start_row: RowStep  # what row i needs of the rows above, beside the tape's stages


@dataclass(frozen=True)
class RasterState(State):
    """All that is known of the images so far."""

    shared: ClassVar[frozenset[str]] = frozenset({"plan", "position", "player"})

    arena: Tensor  # (B, N), laid out by the plan's tape
    position: int  # tokens taken in
    plan: Plan
    player: Player | NativePlayer | None = field(default=None, compare=False)

    def __getitem__(self, rows: Tensor | slice) -> RasterState:
        arena = self.arena[rows].clone()
        if isinstance(self.player, NativePlayer):
            arena = side_by_side(arena)
        return RasterState(arena, self.position, self.plan)


class RasterNetwork(Autoregressor):
    """A network over images (H, W, C) that computes features of one pixel after the other.

    A subclass writes `forward` with `image` and `logits`, and for speed `plan`. Features are split into
    `groups` of channels: C where R, G and B see one another in this order, 1 where a pixel's channels are
    scored together.

    Args:
        spec: of shape (H, W, C), with a class label as context or without.
        grouped: split features into C groups.
        widths: sizes of feature maps, which must divide into the groups.
    """

    uses_context = True
    logits_on_tape = True  # `tape.out` holds them as they are
    embed: Intensity

    def __init__(self, spec: Spec, grouped: bool = True, **widths: int) -> None:
        super().__init__(spec)
        name = type(self).__name__
        if len(spec.shape) != 3:
            raise UserError(
                f"model.net: {name} needs an image of shape (H, W, C), not {spec.shape}; "
                "choose an image data set, or a network for sequences"
            )
        self.groups = spec.shape[2] if grouped else 1
        for argument, width in widths.items():
            if width % self.groups:
                raise UserError(
                    f"model.net.{argument}: {width} features do not divide into {self.groups} "
                    f"channel groups; choose {-(-width // self.groups) * self.groups}"
                )
        self.embed = Intensity(spec.vocab_size)

    def image(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T), T up to the whole image -> intensities (B, C, H, W), zeros where none is given."""
        height, width, channels = self.spec.shape
        values = F.pad(self.embed(tokens), (0, self.spec.length - tokens.shape[1]))
        return rearrange(values, "b (h w c) -> b c h w", h=height, w=width, c=channels)

    def logits(self, maps: Tensor, length: int) -> Tensor:
        """Feature maps (B, C * V, H, W) -> logits (B, T, V) of the first `length` tokens."""
        channels = self.spec.shape[2]
        return rearrange(maps, "b (c v) h w -> b (h w c) v", c=channels)[:, :length]

    def plan(self, tape: Tape) -> RowStep:
        """Record the network at one pixel on the tape, and fold its weights; for speed only.

        Sets `tape.image` (with rows enough for what reads it) and `tape.out`.

        Returns:
            what to do with the arena when row i begins, before the tape's stages; None for nothing.
        """
        raise NotImplementedError

    def start(self, batch: int, length: int, context: Tensor | None = None) -> tuple[Tensor, State]:
        if type(self).plan is RasterNetwork.plan:
            return super().start(batch, length, context)
        device = device_of(self)
        height, width, channels = self.spec.shape
        tape = Tape(height, width, channels, self.groups)
        with torch.no_grad():
            plan = Plan(tape, self.plan(tape))
            dtype = next(self.parameters()).dtype
            arena = torch.zeros(batch, tape.size, dtype=dtype, device=device)
            if wanted(dtype, device):
                arena = side_by_side(arena)
            arena[:, tape.ones] = 1
            for part, value in tape.constants:
                part.at(arena).copy_(value(context))
            for begin in tape.beginnings:
                begin(arena)
            return self._score(RasterState(arena, 0, plan))

    def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, State]:
        if not isinstance(state, RasterState):
            return super().advance(tokens, state)
        scores = []
        with torch.no_grad():
            for values in self.embed(tokens).unbind(1):
                logits, state = self._score(self._write(values, state))
                scores.append(logits)
        return torch.stack(scores, dim=1), state

    def _player(self, tape: Tape, arena: Tensor) -> Player | NativePlayer:
        """Machine code where it can be had, else torch."""
        return (NativePlayer if wanted(arena.dtype, arena.device) else Player)(tape, arena)

    def _write(self, values: Tensor, state: RasterState) -> RasterState:
        """Put the intensities of the next token (B,) into the image."""
        _, width, channels = self.spec.shape
        column, channel = divmod(state.position % (width * channels), channels)
        slot = state.plan.tape.image.window()
        state.arena[:, slot.base + column * slot.right + channel] = values
        return RasterState(state.arena, state.position + 1, state.plan, state.player)

    def _score(self, state: RasterState) -> tuple[Tensor, RasterState]:
        """Logits (B, V) of the next token."""
        _, width, channels = self.spec.shape
        plan, arena = state.plan, state.arena
        player = state.player or self._player(plan.tape, arena)
        pixel, channel = divmod(state.position, channels)
        row, column = divmod(pixel, width)
        if column == channel == 0:
            if plan.start_row is not None:
                plan.start_row(arena, row)
            player.start_row(row)
        if channel < self.groups:
            player.play(row, column, channel)
        state = RasterState(arena, state.position, plan, player)
        return self.read(plan.tape, arena, column, channel), state

    def roll_out(
        self,
        noise: Tensor,
        forced: Tensor,
        context: Tensor | None,
        progress: Callable[[int], object],
    ) -> tuple[Tensor, Tensor] | None:
        if not self.logits_on_tape or forced.shape[1] != self.spec.length:
            return None
        if type(self).plan is RasterNetwork.plan:
            return None
        if not wanted(next(self.parameters()).dtype, noise.device):
            return None
        logits, state = self.start(len(forced), self.spec.length, context)
        assert isinstance(state, RasterState)
        assert isinstance(state.player, NativePlayer)
        height, width, channels = self.spec.shape
        tokens, log_prob = forced.clone(), []
        for row in range(height):
            here = slice(row * width * channels, (row + 1) * width * channels)
            if row and state.plan.start_row is not None:
                state.plan.start_row(state.arena, row)
            drawn = tokens[:, here].contiguous()
            scores = logits.new_empty(*drawn.shape, self.spec.vocab_size)
            state.player.roll(row, self.embed.values, noise[:, here], drawn, scores)
            tokens[:, here] = drawn
            log_prob.append(token_log_prob(scores, drawn).double())
            progress(width * channels)
        return tokens, torch.cat(log_prob, dim=1)

    def read(self, tape: Tape, arena: Tensor, column: int, channel: int) -> Tensor:
        """Logits (B, V) of a channel from what the tape left in `out`."""
        return tape.out.at(arena).clone()


def record_first(tape: Tape, layer: MaskedConv2d, out: Part, bias: Part) -> None:
    """At the row's beginning: the image moves up, and the first layer sees the rows above."""
    image, kernels = tape.image, layer.above()
    tape.shift(image)
    for row in range(image.rows - 1):
        seen = image.span(layer.pads[0], layer.pads[1], row)
        weight = rearrange(kernels[:, :, row], "o i k -> (k i) o")
        tape.linear(seen, weight, out, out if row else bias)


def put(part: Map, arena: Tensor, features: Tensor) -> None:
    """Write features (count, B * W, f) as the newest row of `part`, which has no zeros around it."""
    where = part.view(arena)[:, :, -1]
    where.copy_(rearrange(features, "l (b w) f -> b l w f", b=len(arena)))


def dense(layer: MaskedConv2d | nn.Conv2d) -> Tensor:
    """Bias and weight of what a layer does at the pixel, (1 + in, out)."""
    weight = layer.here() if isinstance(layer, MaskedConv2d) else layer.weight.flatten(1).T
    return torch.cat([layer.bias[None], weight])  # type: ignore[index]
