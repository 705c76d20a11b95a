"""Fillings of gaps of unknown length, ranked: by networks of pairs (T5), and by causal ones (fill in the middle).

Both search with a beam of 5, or of as many as are asked for, by plain log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of
from arlm.domains import InfillingDomain, SpanDomain
from arlm.errors import UserError
from arlm.inference.fillings import Filled, Filling, FillOptions, check_length
from arlm.inference.translator import BEAM, Translator
from arlm.sampling import beam_search


def fill_spans(
    net: Autoregressor, domain: SpanDomain, parts: Sequence[Tensor], options: FillOptions
) -> Filled:
    """Fillings of all gaps at once; the probability is that of the target, so of where spans end, too.

    Args:
        net: a network of pairs.
        domain: of its texts.
        parts: the tokens (P,) before, between and after the gaps.
        options: of the command.
    """
    options.refuse_masked_options("by a beam search")
    source, gaps = domain.source(parts), len(parts) - 1
    longest = domain.source_spec(1) if net.spec.context is None else net.spec.context
    if len(source) > longest.length:
        raise UserError(
            f"TEXT: it has {len(source)} tokens, but the network takes {longest.length}; give a shorter text"
        )
    translator = Translator(
        net, domain, beam=max(BEAM, options.n), n_best=options.n, length_penalty=0.0
    )
    found = []
    for one in translator([source])[0]:
        spans = domain.spans(one.tokens)
        texts = [spans.get(gap, one.tokens[:0]) for gap in range(gaps)]
        found.append(Filling(domain.restored(source, one.tokens), texts, one.log_prob))
    how = f"of the spans and their ends, given the text around them; a beam of {translator.beam}"
    return Filled(found, how)


def fill_middle(
    net: Autoregressor, domain: InfillingDomain, parts: Sequence[Tensor], options: FillOptions
) -> Filled:
    """Fillings of one gap by a causal network that reads prefix and suffix first.

    Args:
        net: a network of rows with the suffix before the middle.
        domain: of its texts.
        parts: the tokens (P,) before and after the gap.
        options: of the command.
    """
    options.refuse_masked_options("by a beam search")
    if len(parts) > 2:
        raise UserError(f"TEXT: it has {len(parts) - 1} gaps, but the network fills one; give one")
    prefix, suffix = parts
    prompt = domain.prompt(prefix, suffix)
    length = net.spec.length if net.max_length is None else net.max_length
    check_length(len(prompt) + 1, net)
    beam = max(BEAM, options.n)
    beams = beam_search(
        *(net, 1, max(length, len(prompt) + 1)),
        beam=beam,
        n_best=options.n,
        length_penalty=0.0,
        prompt=prompt[None].to(device_of(net)),
    )
    found = []
    for row, log_prob, score in zip(
        beams.tokens[0].cpu(), beams.log_prob[0].tolist(), beams.score[0].tolist(), strict=True
    ):
        if score > -torch.inf:
            middle = row[len(prompt) :]
            middle = middle[(middle == domain.end_id).cumsum(0) == 0]
            found.append(Filling(torch.cat([prefix, middle, suffix]), [middle], log_prob))
    how = f"of the middle and its end, given the text around it; a beam of {beam}"
    return Filled(found, how)
