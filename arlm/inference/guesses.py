"""How often the likeliest token is the right one: at masked positions, and for the labels of pairs of segments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from arlm.core import Autoregressor, Batch, device_of
from arlm.data.dataset import Rows
from arlm.data.folders import Split
from arlm.domains import MaskedDomain
from arlm.errors import UserError
from arlm.inference.placement import moved

MOST = 8000  # pairs from which a bag of words learns


class Guesses(NamedTuple):
    """Right guesses, and how many there were."""

    tokens: tuple[int, int]
    labels: tuple[int, int]  # of pairs; (0, 0) without pairs


def guesses(net: Autoregressor, batches: Iterable[Batch], domain: MaskedDomain) -> Guesses:
    """Guess the scored tokens of each batch; a label is guessed as one of the two."""
    found = np.zeros((2, 2), dtype=int)
    first, second = domain.labels
    with torch.inference_mode():
        for batch in batches:
            batch = moved(batch, device_of(net))
            logits, tokens = (
                part[batch.scored] for part in (net(batch.tokens, batch.context), batch.tokens)
            )
            label = (tokens == first) | (tokens == second) if domain.pairs else tokens < 0
            right = logits.argmax(-1) == tokens
            found[0] += int(right[~label].sum()), int((~label).sum())
            if bool(label.any()):
                swapped = logits[label][:, second] > logits[label][:, first]
                found[1] += int((swapped == (tokens[label] == second)).sum()), int(label.sum())
    return Guesses(*(tuple(map(int, row)) for row in found))  # type: ignore[arg-type]


def bag_of_words(data: Any, split: Split) -> tuple[int, int]:
    """Right guesses of the labels of a split, and their number, by logistic regression on words.

    It learns from the first rows of the training split. Its features are the words of each segment and the words that
    they share, so it knows what segments are about, and nothing of the order of words.

    Args:
        data: a data module of pairs, such as `datamodules.masked_text.MaskedText`.
        split: the split to guess.
    """
    from scipy.sparse import hstack  # late, as scikit-learn
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    words = CountVectorizer(min_df=2)

    def read(name: Split) -> tuple[list[str], list[str], np.ndarray]:
        dataset, domain = data.dataset(name), data.domain
        tokens = dataset[Rows(0, torch.arange(min(MOST, len(dataset))))].tokens
        middle = tokens.shape[1] // 2
        parts = (tokens[:, 1:middle], tokens[:, middle + 1 :])
        first, second = ([domain.decode(row) for row in part] for part in parts)
        return first, second, (tokens[:, 0] == domain.labels[1]).numpy()

    def features(first: list[str], second: list[str]) -> Any:
        a, b = words.transform(first), words.transform(second)
        return hstack([a, b, a.minimum(b)]).tocsr()

    *train, labels = read("train")
    try:
        words.fit(train[0] + train[1])
    except ValueError:
        raise UserError("data.text: it has no words for the bag of words") from None
    model = LogisticRegression(max_iter=500).fit(features(*train), labels)
    *held, truth = read(split)
    return int((model.predict(features(*held)) == truth).sum()), len(truth)
