"""The base class of pixel networks: logits for whole images, and fast sampling pixel by pixel.

Fast sampling caches the features of the pixels that are already drawn; `arlm.programs.program` explains how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from arlm.core import Autoregressor, Spec, device_of, token_log_prob
from arlm.errors import UserError
from arlm.pixels.intensity import Intensity
from arlm.programs.choice import use_native
from arlm.programs.native_backend import NativeBackend, is_available, side_by_side
from arlm.programs.program import Program
from arlm.programs.torch_backend import TorchBackend
from arlm.states import SHARED, State, read_lengths


@dataclass(frozen=True)
class PixelState(State):
    """A program's workspace in the middle of an image. All rows of the batch are at the same position."""

    workspace: Tensor  # (B, N), laid out by the program
    position: int = field(metadata=SHARED)  # number of tokens already written
    program: Program = field(metadata=SHARED)
    native: bool = field(metadata=SHARED)  # whether the backend is machine code
    # Bound to the memory of `workspace`.
    backend: TorchBackend | NativeBackend | None = field(metadata=SHARED)

    @property
    def one_position(self) -> bool:
        return True

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        return super().map(function)._laid_out()

    def __getitem__(self, rows: Tensor | slice) -> Self:
        return super().__getitem__(rows)._laid_out()

    def check_fits(self, rows: Tensor, other: Self) -> None:
        self._check_position([other])
        super().check_fits(rows, other)

    def concatenated(self, others: Sequence[Self]) -> Self:
        self._check_position(others)
        return super().concatenated(others)._laid_out()

    def _laid_out(self) -> Self:
        """The state with a new workspace in the memory layout of its backend."""
        native = self.native and is_available(self.workspace.dtype, self.workspace.device)
        workspace = side_by_side(self.workspace) if native else self.workspace
        return replace(self, workspace=workspace, native=native, backend=None)

    def _check_position(self, others: Sequence[Self]) -> None:
        positions = {state.position for state in (self, *others)}
        if len(positions) > 1:
            raise UserError(
                f"state: its images are at tokens {sorted(positions)}; join images at the same token only"
            )


def equal_length(lengths: Tensor) -> int:
    """The one length of all rows (B,); raises a UserError if they differ."""
    if len(lengths.unique()) > 1:
        raise UserError(
            f"lengths: {lengths.tolist()} differ, but the images of a batch are at the same pixel; "
            "give one length for all"
        )
    return int(lengths[0])


class PixelNetwork(Autoregressor):
    """A network over images (H, W, C) that computes features pixel by pixel.

    A subclass writes `forward` with `image` and `logits`, and for fast sampling `build_program`. Features are
    split into `groups`: C groups if a channel is conditioned on the earlier channels of its pixel, 1 group if
    all channels of a pixel are scored together.

    Args:
        spec: of shape (H, W, C); its context is a class label or None.
        grouped: split features into C groups.
        widths: sizes of feature maps, which must be divisible by the number of groups.
    """

    uses_context = True
    logits_in_program = True  # `program.out` holds the logits of one channel
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
                    f"model.net.{argument}: {width} features are not divisible by {self.groups} "
                    f"channel groups; choose {-(-width // self.groups) * self.groups}"
                )
        self.embed = Intensity(spec.vocab_size)

    def image(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T), T <= H * W * C -> intensities (B, C, H, W), zeros for missing tokens."""
        height, width, channels = self.spec.shape
        values = F.pad(self.embed(tokens), (0, self.spec.length - tokens.shape[1]))
        return rearrange(values, "b (h w c) -> b c h w", h=height, w=width, c=channels)

    def logits(self, maps: Tensor, length: int) -> Tensor:
        """Feature maps (B, C * V, H, W) -> logits (B, T, V) of the first `length` tokens."""
        channels = self.spec.shape[2]
        return rearrange(maps, "b (c v) h w -> b (h w c) v", c=channels)[:, :length]

    def build_program(self, program: Program) -> None:
        """Record the computation at one pixel for fast sampling, with masked weights; see `arlm.programs.program`.

        Sets `program.image` (with as many rows as the kernel of the first layer) and `program.out`; may set
        `program.before_row`.
        """
        raise NotImplementedError

    def start(self, batch: int, length: int, context: Tensor | None = None) -> tuple[Tensor, State]:
        if type(self).build_program is PixelNetwork.build_program:
            return super().start(batch, length, context)
        program = self.program()
        device, dtype = device_of(self), next(self.parameters()).dtype
        native = use_native(program, batch, length, dtype, device)
        return self._start(program, native, batch, context)

    def program(self) -> Program:
        """The program of one pixel, with the current weights."""
        height, width, channels = self.spec.shape
        program = Program(height, width, channels, self.groups)
        with torch.no_grad():
            self.build_program(program)
        return program

    def _start(
        self, program: Program, native: bool, batch: int, context: Tensor | None
    ) -> tuple[Tensor, PixelState]:
        """`start` with a given program and backend."""
        dtype = next(self.parameters()).dtype
        with torch.no_grad():
            workspace = torch.zeros(batch, program.size, dtype=dtype, device=device_of(self))
            if native:
                workspace = side_by_side(workspace)
            workspace[:, program.ones] = 1
            for allocated, value in program.constants:
                allocated.at(workspace).copy_(value(context))
            for initialise in program.initialisers:
                initialise(workspace)
            backend = self._backend(program, workspace, native)
            state = PixelState(workspace, 0, program, native, backend, net=self.serial)
            return self._score(state, backend, 0), state

    def advance(
        self, tokens: Tensor, state: Any, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if not isinstance(state, PixelState):
            return super().advance(tokens, state, lengths)
        state.consume(self)
        size = tokens.shape[1]
        if lengths is not None:
            tokens = tokens[:, : equal_length(read_lengths(tokens, lengths))]
        if state.position + tokens.shape[1] >= self.spec.length:
            raise UserError(
                f"state: its images hold {state.position} tokens and cannot take {tokens.shape[1]} more; "
                f"an image has {self.spec.length}, and the last one scores nothing"
            )
        scores, position = [], state.position
        with torch.no_grad():
            backend = state.backend or self._backend(state.program, state.workspace, state.native)
            for values in self.embed(tokens).unbind(1):
                self._write(values, state, position)
                position += 1
                scores.append(self._score(state, backend, position))
        after = replace(state, position=position, backend=backend)
        if len(scores) == size:
            return torch.stack(scores, dim=1), after
        missing = state.workspace.new_zeros(len(tokens), size - len(scores), self.spec.vocab_size)
        return torch.cat([*(logits[:, None] for logits in scores), missing], dim=1), after

    def _backend(
        self, program: Program, workspace: Tensor, native: bool
    ) -> TorchBackend | NativeBackend:
        return (NativeBackend if native else TorchBackend)(program, workspace)

    def _write(self, values: Tensor, state: PixelState, position: int) -> None:
        """Write the intensities of the token at a position (B,) into the image."""
        _, width, channels = self.spec.shape
        column, channel = divmod(position % (width * channels), channels)
        slot = state.program.image.window()
        state.workspace[:, slot.base + column * slot.right + channel] = values

    def _score(
        self, state: PixelState, backend: TorchBackend | NativeBackend, position: int
    ) -> Tensor:
        """Logits (B, V) of the token at a position."""
        _, width, channels = self.spec.shape
        program, workspace = state.program, state.workspace
        pixel, channel = divmod(position, channels)
        row, column = divmod(pixel, width)
        if column == channel == 0:
            if program.before_row is not None:
                program.before_row(workspace, row)
            backend.start_row(row)
        if channel < self.groups:
            backend.run(row, column, channel)
        return self.read_logits(program, workspace, column, channel)

    def sample_rows(
        self,
        noise: Tensor,
        forced: Tensor,
        context: Tensor | None,
        progress: Callable[[int], object],
        rules: Sequence[tuple[str, float]] = (),
    ) -> tuple[Tensor, Tensor] | None:
        """Draw whole images with the native backend, one call for each image row.

        See `arlm.sampling.generate.SamplesRows`; returns None if the torch backend is as good (`arlm.programs.choice`).
        """
        if not self.logits_in_program or forced.shape[1] != self.spec.length:
            return None
        if type(self).build_program is PixelNetwork.build_program:
            return None
        program = self.program()
        work = (len(forced), self.spec.length, next(self.parameters()).dtype, noise.device)
        if not use_native(program, *work, take=False):
            return None
        logits, state = self._start(program, True, len(forced), context)
        assert isinstance(state.backend, NativeBackend)
        height, width, channels = self.spec.shape
        tokens, log_prob = forced.clone(), []
        for row in range(height):
            image_row = slice(row * width * channels, (row + 1) * width * channels)
            if row and state.program.before_row is not None:
                state.program.before_row(state.workspace, row)
            drawn = tokens[:, image_row].contiguous()
            scores = logits.new_empty(*drawn.shape, self.spec.vocab_size)
            level, numbers = self.embed.values, noise[:, image_row]
            state.backend.sample_row(row, level, numbers, drawn, scores, rules)
            tokens[:, image_row] = drawn
            log_prob.append(token_log_prob(scores, drawn).double())
            progress(width * channels)
        return tokens, torch.cat(log_prob, dim=1)

    def read_logits(self, program: Program, workspace: Tensor, column: int, channel: int) -> Tensor:
        """Logits (B, V) of a channel, from the slice `out` of the workspace."""
        return program.out.at(workspace).clone()
