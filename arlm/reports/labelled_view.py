"""ClassificationView and RegressionView: texts with the classes or values that a network gives them, and how right they are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.domains.labelled import ClassificationDomain, LabelledTextDomain, RegressionDomain
from arlm.evaluation.classification import classification_figures, regression_figures
from arlm.inference.classification import split_log_prob
from arlm.reports.shown import Drawn, Shown
from arlm.reports.view import View
from arlm.sampling import Sampler

if TYPE_CHECKING:
    from arlm.data.folders import Split
    from arlm.data.module import TokenDataModule


L = TypeVar("L", bound=LabelledTextDomain)


class LabelledTextView(View[L]):
    """Texts with labels. A subclass writes `answer`, `summary` and `quality`."""

    verbs = frozenset({"classify"})
    purpose = "classifies texts"
    heading = "The first examples, with their labels"

    def show(self, tokens: Tensor) -> Shown:
        return Shown(tokens.numel(), texts=[str(self.domain.decode(row)) for row in tokens])

    def pieces(self, tokens: Tensor) -> list[str]:
        return [f"{self.domain.decode(token[None])} " for token in tokens]

    def draw(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        n: int,
        seed: int = 0,
        length: int | None = None,
        sampler: Sampler = Sampler(),  # noqa: B008  (frozen)
        beam: int = 5,
    ) -> Drawn:
        """The split's first `n` examples with what the network says of them."""
        log_prob, _ = split_log_prob(net, data, split, n)
        examples = data.examples(split)[: len(log_prob)] if split != "train" else []

        def shown() -> Shown:
            texts = [
                "\n".join([*example.texts, f"= {example.label}", f"> {self.summary(row)}"])
                for example, row in zip(examples, log_prob, strict=False)
            ]
            return Shown(len(log_prob), texts=texts)

        return Drawn(len(log_prob), shown)

    @abstractmethod
    def answer(self, log_prob: Tensor) -> dict[str, Any]:
        """What log-probabilities (V,) of the labels say."""

    @abstractmethod
    def summary(self, log_prob: Tensor) -> str:
        """The answer in a line."""

    def items(self, data: TokenDataModule, split: Split) -> int:
        return len(data.dataset(split))  # type: ignore[arg-type]


class ClassificationView(LabelledTextView[ClassificationDomain]):
    """Classes of texts."""

    def answer(self, log_prob: Tensor) -> dict[str, Any]:
        """The likeliest class, its probability, and that of each class."""
        probabilities = log_prob.exp().tolist()
        named = dict(zip(self.domain.classes, probabilities, strict=True))
        best = self.domain.classes[int(log_prob.argmax())]
        return {"label": best, "probability": named[best], "probabilities": named}

    def summary(self, log_prob: Tensor) -> str:
        """The likeliest class, a tab, and its probability."""
        found = self.answer(log_prob)
        return f"{found['label']}\t{found['probability']:.4f}"

    def correct(
        self,
        net: Autoregressor,
        data: TokenDataModule,
        split: Split,
        progress: Callable[[int], object] | None = None,
    ) -> Tensor:
        log_prob, labels = split_log_prob(net, data, split, progress=progress)
        return log_prob.argmax(-1) == labels

    def quality(
        self,
        net: Autoregressor,
        data: TokenDataModule,
        split: Split,
        beam: int,
        length_penalty: float,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Accuracy, F1 and Matthews' correlation."""
        log_prob, labels = split_log_prob(net, data, split, progress=progress)
        given = log_prob.argmax(-1), labels, self.domain.vocab_size
        return {"classification": dict(classification_figures(*given))}


class RegressionView(LabelledTextView[RegressionDomain]):
    """Values of texts."""

    purpose = "predicts values of texts"

    def answer(self, log_prob: Tensor) -> dict[str, Any]:
        """The expected value and the standard deviation."""
        probabilities, values = log_prob.exp(), self.domain.values
        mean = float(probabilities @ values)
        deviation = float((probabilities @ (values - mean).square()).sqrt())
        return {"value": mean, "deviation": deviation}

    def summary(self, log_prob: Tensor) -> str:
        """The expected value, a tab, and the standard deviation."""
        return "{value:.4f}\t{deviation:.4f}".format(**self.answer(log_prob))

    def quality(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        beam: int,
        length_penalty: float,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Mean absolute error of the expected value, and its correlations with the values of the data.

        Of training examples, of which some may be left out, the values are the middles of their bins.
        """
        log_prob, labels = split_log_prob(net, data, split, progress=progress)
        values = self.domain.values[labels]
        if split != "train":
            given = [float(example.label) for example in data.examples(split)]
            values = torch.tensor(given, dtype=torch.float64)
        return {"regression": dict(regression_figures(log_prob.exp() @ self.domain.values, values))}
