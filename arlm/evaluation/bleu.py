"""Quality of translations: BLEU and chrF by SacreBLEU, and the share of exact matches.

References:
    | BLEU: a Method for Automatic Evaluation of Machine Translation (Papineni et al., 2002)
    | https://aclanthology.org/P02-1040
    | A Call for Clarity in Reporting BLEU Scores (Post, 2018), SacreBLEU and its signatures
    | https://arxiv.org/abs/1804.08771
    | chrF: character n-gram F-score for automatic MT evaluation (Popovic, 2015)
    | https://aclanthology.org/W15-3049
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sacrebleu.metrics import BLEU, CHRF


class TranslationScores(NamedTuple):
    """Corpus-level scores in per cent."""

    bleu: float  # case-sensitive
    bleu_lowercase: float
    chrf: float
    exact: float  # sentences equal to their reference
    signature: str  # SacreBLEU's, of `bleu`
    chrf_signature: str

    @property
    def figures(self) -> dict[str, float]:
        """The numbers, without the signatures."""
        return {k: v for k, v in self._asdict().items() if not isinstance(v, str)}


def score_translations(translations: Sequence[str], references: Sequence[str]) -> TranslationScores:
    """Score detokenised translations against one raw reference each."""
    cased, lowercase, chrf = BLEU(), BLEU(lowercase=True), CHRF()
    given = list(translations), [list(references)]
    same = sum(t == r for t, r in zip(translations, references, strict=True))
    return TranslationScores(
        cased.corpus_score(*given).score,
        lowercase.corpus_score(*given).score,
        chrf.corpus_score(*given).score,
        100 * same / len(translations),
        str(cased.get_signature()),
        str(chrf.get_signature()),
    )
