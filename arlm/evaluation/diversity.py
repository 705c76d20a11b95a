"""How repetitive and how diverse texts are: repeated n-grams, loops, distinct n-grams, self-BLEU, Zipf's exponent.

Most of these figures depend on the length of the texts and on their number, so texts are compared at equal length and in
equal number, and human text of that length is the measure: neither 0 nor 1 is. Items may be anything that can be
compared and hashed: tokens, or `words` of a text.

References:
    | The Curious Case of Neural Text Degeneration (Holtzman et al., 2020): repetition, Zipf's exponent, self-BLEU
    | https://arxiv.org/abs/1904.09751
    | Neural Text Generation with Unlikelihood Training (Welleck et al., 2020): seq-rep-n, here `repeated_ngrams`
    | https://arxiv.org/abs/1908.04319
    | A Contrastive Framework for Neural Text Generation (Su et al., 2022): `diversity`
    | https://arxiv.org/abs/2202.06417
    | A Diversity-Promoting Objective Function for Neural Conversation Models (Li et al., 2016): `distinct_n`
    | https://arxiv.org/abs/1510.03055
    | Texygen: A Benchmarking Platform for Text Generation Models (Zhu et al., 2018): `self_bleu`
    | https://arxiv.org/abs/1802.01886
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from sacrebleu.metrics import BLEU

from arlm.errors import require

WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """The words and the punctuation marks of a text, in order; an apostrophe within a word is part of it."""
    return WORD.findall(text)


def ngrams(items: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """The n-grams of a sequence, in order: max(0, len(items) - n + 1) of them."""
    require(n >= 1, "n", n, "choose at least 1")
    return [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]


def repeated_ngrams(items: Sequence[Hashable], n: int) -> float:
    """The share of a text's n-grams that occurred before in it, 1 - distinct / all, from 0 to 1.

    It is seq-rep-n of Welleck et al. and, in per cent, rep-n of Su et al.; nan for a text of fewer than n items.
    """
    found = ngrams(items, n)
    return 1 - len(set(found)) / len(found) if found else math.nan


def diversity(items: Sequence[Hashable], sizes: Iterable[int] = (2, 3, 4)) -> float:
    """The product of 1 - `repeated_ngrams` over several n, from 0 to 1; nan for a text that is too short."""
    return math.prod(1 - repeated_ngrams(items, n) for n in sizes)


def distinct_n(texts: Iterable[Sequence[Hashable]], n: int) -> float:
    """The number of different n-grams in a set of texts, divided by the number of all, from 0 to 1.

    Li et al. divide by the number of words in place of that of n-grams. It falls with the size of the set. nan for
    texts without any n-gram; n-grams do not cross from one text into the next.
    """
    found = [ngram for items in texts for ngram in ngrams(items, n)]
    return len(set(found)) / len(found) if found else math.nan


def loop_period(items: Sequence[Hashable], times: int = 3, least: int = 20) -> int:
    """The period of the loop in which a sequence ends, or 0 if it does not end in one.

    A loop is a phrase that occurs at least `times` times at the end, and fills at least `least` items there: the
    smallest p such that the last max(times * p, least) items repeat with period p.

    Args:
        items: the sequence.
        times: how often the phrase has to occur there, 2 or more.
        least: items that a loop has to fill.
    """
    require(times >= 2, "times", times, "choose at least 2")
    size = len(items)
    for period in range(1, size // times + 1):
        inside = max(times * period, least)
        if inside > size:
            break
        if all(items[i] == items[i - period] for i in range(size - inside + period, size)):
            return period
    return 0


def self_bleu(texts: Sequence[str], n: int = 4) -> float:
    """The mean BLEU of each text with all others as its references, from 0 to 100: high where texts are alike.

    By SacreBLEU, sentence by sentence: tokens `13a`, exponential smoothing, effective order. It rises with the number of
    texts, and it says nothing of repetition within a text.

    Args:
        texts: two or more.
        n: of the longest n-grams.
    """
    require(len(texts) >= 2, "texts", len(texts), "give at least 2")
    bleu = BLEU(max_ngram_order=n, effective_order=True)
    others = [[*texts[:i], *texts[i + 1 :]] for i in range(len(texts))]
    scores = (bleu.sentence_score(t, o).score for t, o in zip(texts, others, strict=True))
    return sum(scores) / len(texts)


def frequencies(items: Iterable[Hashable]) -> list[int]:
    """How often each different item occurs, from the most frequent one (rank 1) on."""
    return sorted(Counter(items).values(), reverse=True)


def zipf_exponent(counts: Sequence[float], first: int = 1, last: int | None = None) -> float:
    """The s of the power law, frequency ~ rank ** -s: least squares on the logarithms of both.

    Args:
        counts: as from `frequencies`.
        first, last: the ranks that are fitted, from 1 on and `last` included; by default all. Exponents of other
            ranks differ, so a figure goes with its ranks.

    Returns: s, about 1 for natural language; nan for fewer than two ranks.
    """
    require(first >= 1, "first", first, "choose at least 1")
    chosen = np.log(np.asarray(counts[first - 1 : last], dtype=np.float64))
    if len(chosen) < 2:
        return math.nan
    ranks = np.log(np.arange(first, first + len(chosen)))
    return float(-np.polyfit(ranks, chosen, 1)[0])
