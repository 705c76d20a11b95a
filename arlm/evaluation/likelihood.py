"""Likelihood: nll, perplexity, and bits_per_byte, bits_per_word or bits_per_dim, from one sum of nats."""

from __future__ import annotations

import math

LARGEST_EXPONENT = 700.0  # exp of a larger number overflows float64


def figures(
    nats: float, tokens: float, units: float, unit: str, words: float = 0
) -> dict[str, float]:
    """Likelihood figures from sums; the only place that divides them.

    Args:
        nats: sum of -log p over the scored tokens.
        tokens: number of scored tokens.
        units: bytes or dims that the tokens represent.
        unit: name of the unit, for the key of the last figure.
        words: words in the text; 0 omits the figures per word, which mean something only if tokens are words or
            parts of words: a model of characters has a word perplexity of some 50,000.

    Returns:
        nll = nats / tokens, ppl = exp(nll), bits_per_<unit> = nats / (ln 2 * units); with words also
        bits_per_word = nats / (ln 2 * words) and word_ppl = exp(nats / words).
    """
    nll = nats / tokens if tokens else math.nan
    bits = nats / (math.log(2) * units) if units else math.nan
    found = {"nll": nll, "ppl": perplexity(nll), f"bits_per_{unit}": bits}
    if words:
        found["bits_per_word"] = nats / (math.log(2) * words)
        found["word_ppl"] = perplexity(nats / words)
    return found


def perplexity(nll: float) -> float:
    """exp(nll), with the exponent clamped so that the result stays finite."""
    return math.exp(min(nll, LARGEST_EXPONENT))
