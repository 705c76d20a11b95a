"""Repetition and diversity: cases counted by hand, and self-BLEU from its definition."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from sacrebleu.metrics import BLEU

from arlm.errors import UserError
from arlm.evaluation.diversity import (
    distinct_n,
    diversity,
    frequencies,
    loop_period,
    ngrams,
    repeated_ngrams,
    self_bleu,
    words,
    zipf_exponent,
)


def test_words_and_marks() -> None:
    text = "Don't go, my lord!\n'Tis he: e\u2019en so\u2014well."
    expected = [
        "Don't",
        "go",
        ",",
        "my",
        "lord",
        "!",
        "'",
        "Tis",
        "he",
        ":",
        "e\u2019en",
        "so",
        "\u2014",
    ]
    assert words(text) == [*expected, "well", "."]


def test_repeated_ngrams_by_hand() -> None:
    # a b a b a b: pairs ab ba ab ba ab, of which two differ; triples aba bab aba bab.
    assert ngrams("abab", 3) == [tuple("aba"), tuple("bab")]
    assert repeated_ngrams("ababab", 2) == pytest.approx(3 / 5)
    assert repeated_ngrams("ababab", 3) == pytest.approx(2 / 4)
    assert repeated_ngrams("abcdef", 1) == 0
    assert repeated_ngrams("aaaa", 1) == pytest.approx(3 / 4)
    assert math.isnan(repeated_ngrams("abc", 4))


def test_diversity_is_the_product_for_2_3_4() -> None:
    # of a b a b a b: 2/5 pairs, 2/4 triples, 2/3 quadruples (abab baba abab) are distinct
    assert diversity("ababab") == pytest.approx(2 / 5 * 2 / 4 * 2 / 3)
    assert diversity("ababab", sizes=(2,)) == pytest.approx(2 / 5)
    assert diversity("abcdefgh") == 1


def test_distinct_n_pools_texts_and_does_not_cross_them() -> None:
    # pairs: ab bc | ab bd. Of four, three differ; the pair "ca" across the border would be a fifth.
    assert distinct_n(["abc", "abd"], 2) == pytest.approx(3 / 4)
    assert distinct_n(["abc", "abd"], 1) == pytest.approx(4 / 6)
    # Each text alone has no repetition; a mean over texts would be 1.
    assert distinct_n(["ab", "ab"], 2) == pytest.approx(1 / 2)
    assert math.isnan(distinct_n(["a", "b"], 2))


@pytest.mark.parametrize(
    ("row", "period"),
    [
        ([9, 8, 7] + [1] * 20, 1),
        ([9, 8, 7] + [1] * 19, 0),  # 19 of 20 items
        ([1] * 20, 1),  # the whole row
        ([1, 2, 3] * 7, 3),  # 21 items
        ([1, 2, 3] * 6, 0),  # 18 items
        ([5] + [*range(10)] * 3, 10),
        ([5] + [*range(10)] * 2 + [*range(9)], 0),  # not three times, whole
        ([*range(10)] * 3 + [5], 0),  # it does not end in the loop
        ([1, 1, 2] * 8, 3),  # not 1, though each period has 1 1
        ([*range(30)], 0),
        ([], 0),
    ],
)
def test_the_period_of_a_loop_at_the_end(row: list[int], period: int) -> None:
    assert loop_period(row) == period


def test_loops_of_other_sizes() -> None:
    assert loop_period("xabab", times=2, least=4) == 2
    assert loop_period("xabab", times=2, least=5) == 0
    assert loop_period("xababab", times=3, least=1) == 2
    with pytest.raises(UserError, match="times: 1"):
        loop_period("aaaa", times=1)


def sentence_bleu(text: list[str], others: list[list[str]]) -> float:
    """BLEU-4 of a text from its definition, without smoothing: every precision has to be above 0."""
    logs = 0.0
    for n in range(1, 5):
        found = Counter(ngrams(text, n))
        most = {g: max(Counter(ngrams(o, n))[g] for o in others) for g in found}
        correct = sum(min(count, most[g]) for g, count in found.items())
        logs += math.log(correct / sum(found.values())) / 4
    closest = min((abs(len(o) - len(text)), len(o)) for o in others)[1]
    return 100 * math.exp(min(0.0, 1 - closest / len(text)) + logs)


TEXTS = ["a b c d e f", "a b c d e g h", "x a b c d", "c d e f g a b c d"]


def test_self_bleu_is_the_mean_over_texts_with_all_others_as_references() -> None:
    split = [text.split() for text in TEXTS]
    expected = [sentence_bleu(t, [o for o in split if o is not t]) for t in split]
    assert self_bleu(TEXTS) == pytest.approx(sum(expected) / 4)
    assert min(expected) > 50  # no precision is 0


def test_self_bleu_of_the_library_with_its_defaults_named() -> None:
    bleu = BLEU(effective_order=True, tokenize="13a", smooth_method="exp", max_ngram_order=4)
    texts = [
        "the cat sat on the mat .",
        "a dog, and the cat sat down",
        "the cat sat",
    ]  # the last has no 4-gram
    others = [texts[1:], [texts[0], texts[2]], texts[:2]]
    scores = [bleu.sentence_score(t, o).score for t, o in zip(texts, others, strict=True)]
    assert self_bleu(texts) == pytest.approx(sum(scores) / 3)


def test_self_bleu_of_equal_and_of_unlike_texts() -> None:
    assert self_bleu(["one two three four five"] * 3) == pytest.approx(100)
    assert self_bleu(["a b c d e f", "g h i j k l"]) == pytest.approx(0, abs=10)
    with pytest.raises(UserError, match="texts: 1"):
        self_bleu(["alone"])


def test_zipf_of_an_exact_power_law() -> None:
    # 2520 is a multiple of all numbers to 10, and 2520 ** 2 of their squares.
    assert zipf_exponent([2520 // r for r in range(1, 11)]) == pytest.approx(1)
    assert zipf_exponent([2520**2 // r**2 for r in range(1, 11)]) == pytest.approx(2)
    assert zipf_exponent([3.0 * r**-0.7 for r in range(1, 50)]) == pytest.approx(0.7)
    assert zipf_exponent([5, 5, 5]) == pytest.approx(0)


def test_zipf_of_some_ranks() -> None:
    # exponent 1 to rank 10, then constant: ranks count from the first of all, not from the first that is fitted
    counts = [2520 // r for r in range(1, 11)] + [200] * 10
    assert zipf_exponent(counts, last=10) == pytest.approx(1)
    assert zipf_exponent(counts, first=4, last=10) == pytest.approx(1)
    assert zipf_exponent(counts, first=11) == pytest.approx(0)
    assert zipf_exponent(counts) not in (pytest.approx(1), pytest.approx(0))
    assert math.isnan(zipf_exponent([7]))


def test_frequencies_are_those_of_ranks() -> None:
    assert frequencies("abracadabra") == [5, 2, 2, 1, 1]


@pytest.mark.parametrize("call", [lambda: ngrams("ab", 0), lambda: zipf_exponent([2, 1], first=0)])
def test_sizes_below_one_are_refused(call) -> None:
    with pytest.raises(UserError, match="choose at least 1"):
        call()
