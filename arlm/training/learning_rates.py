"""Learning rates of single parameters: factors by name, by depth, or by the network itself; 0 freezes.

References:
    | Universal Language Model Fine-tuning for Text Classification (Howard, Ruder, 2018), a rate for each layer
    | https://arxiv.org/abs/1801.06146
    | LoRA+: Efficient Low Rank Adaptation of Large Models (Hayou, Ghosh, Yu, 2024) | https://arxiv.org/abs/2402.12354
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Protocol, runtime_checkable

from torch import nn

from arlm.errors import UserError, require

# Lists of blocks, and what belongs to each block beside them.
LISTS = r"blocks|layers|encoder|decoder|initial_state|ups|skips|above_\w+|left_\w+"
LAYER = re.compile(rf"(?:^|\.)(?:{LISTS})\.(\d+)(?:\.|$)|_l(\d+)(?:_reverse)?$")
INPUT = re.compile(r"embed|position|distance|start|prompt|prefix|label|first")


@runtime_checkable
class HasFactors(Protocol):
    """A module whose parameters learn at different rates, such as the two factors of LoRA."""

    def learning_rate_factors(self) -> dict[str, float]:
        """Factors of the learning rate by the names of this module's own parameters."""


class LearningRates:
    """The factor of each parameter's learning rate, and which parameters are frozen.

    Args:
        by_pattern: factors by pattern of parameter names, such as {"embed*": 0, "blocks.0.*": 0.1}; 0 freezes. Of
            several patterns that match, the last one counts. Frozen parameters get no gradient and never change.
        layer_decay: factor from each layer to the one below it, in (0, 1]; what comes after the layers has factor 1.
    """

    def __init__(
        self, by_pattern: Mapping[str, float] | None = None, layer_decay: float = 1.0
    ) -> None:
        fits = 0 < layer_decay <= 1
        require(fits, "model.layer_decay", layer_decay, "choose above 0, up to 1")
        self.by_pattern, self.layer_decay = dict(by_pattern or {}), layer_decay
        for pattern, factor in self.by_pattern.items():
            mend = "choose 0, which freezes, or more"
            require(0 <= factor < math.inf, f"model.learning_rates.{pattern}", factor, mend)

    def freeze(self, net: nn.Module) -> None:
        """Freeze what has factor 0; raises a UserError for a pattern that matches nothing, or if nothing is left."""
        names = [name for name, _ in net.named_parameters()]
        for pattern in self.by_pattern:
            if not any(fnmatchcase(name, pattern) for name in names):
                some = ", ".join(names[:6])
                raise UserError(
                    f"model.learning_rates: {pattern!r} matches no parameter of {type(net).__name__}; "
                    f"choose among {some}, ..."
                )
        for name, parameter in net.named_parameters():
            if self._given(name) == 0:
                parameter.requires_grad_(False)
        if names and not any(p.requires_grad for p in net.parameters()):
            raise UserError(
                f"model.learning_rates: {self.by_pattern} freezes every parameter; leave some of them out"
            )

    def factors(self, net: nn.Module) -> dict[nn.Parameter, float]:
        """The factor of each parameter."""
        found = {parameter: self._given(name) for name, parameter in net.named_parameters()}
        for module in net.modules():
            if isinstance(module, HasFactors):
                for name, factor in module.learning_rate_factors().items():
                    found[module.get_parameter(name)] *= factor  # type: ignore[attr-defined]
        if self.layer_decay == 1:
            return found
        depths = layer_depths(net)
        top = max(depths.values(), default=0)
        for name, parameter in net.named_parameters():
            found[parameter] *= self.layer_decay ** (top - depths[name])
        return found

    def _given(self, name: str) -> float:
        matching = [f for pattern, f in self.by_pattern.items() if fnmatchcase(name, pattern)]
        return matching[-1] if matching else 1.0


def layer_depths(net: nn.Module) -> dict[str, int]:
    """The layer of each parameter, by name: 0 for what the first layer reads, and one more than the last after it.

    A layer is one of a list of blocks, such as `blocks.3`, or one of torch's LSTM, such as `encoder.weight_ih_l3`. What
    the first one reads has a name of inputs: embeddings, positions, start vectors, ... Everything else comes
    after the layers, such as a head, wherever the network registers it.
    """
    layers = {name: LAYER.search(name) for name, _ in net.named_parameters()}
    depths = {name: int(found[1] or found[2]) + 1 for name, found in layers.items() if found}
    top = 1 + max(depths.values(), default=0)
    outside = {name: 0 if INPUT.search(name) else top for name in layers if name not in depths}
    return depths | outside
