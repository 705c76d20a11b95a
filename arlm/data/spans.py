"""Which spans of a row are missing: T5's noise, with every composition of the row equally probable.

    row       a b c d e f g h i j        10 tokens: 3 missing in 2 spans, 7 of text
    missing   . . x x . . . . x .        3 = 2 + 1,  7 = 2 + 4 + 1

References:
    | Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (Raffel et al., 2020), 3.3.4
    | https://arxiv.org/abs/1910.10683
    | random_spans_noise_mask of the T5 library, whose rows begin with text and end with a span
    | https://github.com/google-research/text-to-text-transfer-transformer
"""

from __future__ import annotations

import torch
from torch import Tensor


def span_counts(length: int, noise: float, mean_span: float, closing: bool) -> tuple[int, int]:
    """How many tokens of a row are missing, and in how many spans; both at least 1.

    Args:
        length: tokens of the row, at least 1.
        noise: share of the tokens that are missing, in (0, 1).
        mean_span: mean length of a span.
        closing: whether a row may begin with a span and end with text (see `span_mask`).
    """
    missing = min(max(round(length * noise), 1), max(length - 1, 1))
    # Spans do not touch: there is text between two of them, and before the first one without `closing`.
    text = length - missing
    most = min(missing, text + 1 if closing else max(text, 1))
    return missing, min(max(round(missing / mean_span), 1), most)


def span_mask(
    numbers: Tensor, length: int, noise: float, mean_span: float, closing: bool = True
) -> Tensor:
    """Which tokens of a row are missing, (L,) bool.

    The missing tokens are cut into spans, and the others into the texts around them: both uniformly, over all ways
    to cut them. With `closing` a row may begin and end with text or with a span; otherwise it begins with text and
    ends with a span, as in the seqio library. Spans never touch.

    Args:
        numbers: (2, N) uniform in [0, 1), N of at least `length` + 1.
        length, noise, mean_span, closing: as for `span_counts`.
    """
    missing, spans = span_counts(length, noise, mean_span, closing)
    text = length - missing
    if not text:
        return torch.ones(length, dtype=torch.bool)
    of_spans = composition(numbers[0], missing, spans)
    if closing:  # the outer texts may be empty
        of_text = composition(numbers[1], text + 2, spans + 1)
        of_text[[0, -1]] -= 1
    else:
        of_text = torch.cat([composition(numbers[1], text, spans), of_spans.new_zeros(1)])
    sizes = torch.stack([of_text, torch.cat([of_spans, of_spans.new_zeros(1)])], dim=1).flatten()
    return (torch.arange(len(sizes)) % 2 == 1).repeat_interleave(sizes)


def composition(numbers: Tensor, total: int, parts: int) -> Tensor:
    """`total` as the sum of `parts` positive integers (parts,), each way equally probable.

    Args:
        numbers: (N,) uniform in [0, 1), N of at least `total` - 1.
    """
    cuts = numbers[: total - 1].argsort()[: parts - 1].sort().values + 1
    ends = torch.tensor([0, total])
    return torch.cat([ends[:1], cuts, ends[1:]]).diff()
