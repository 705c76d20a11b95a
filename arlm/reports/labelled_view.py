"""LabelledTextView: texts with the classes or values that a network gives them, and how often they are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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


class LabelledTextView(View[LabelledTextDomain]):
    """Classes or values of texts."""

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

    def answer(self, log_prob: Tensor) -> dict[str, Any]:
        """What log-probabilities (V,) of the labels say: a class with its probability, or a value and its deviation."""
        probabilities = log_prob.exp()
        if isinstance(self.domain, RegressionDomain):
            values = self.domain.values
            mean = float(probabilities @ values)
            deviation = float((probabilities @ (values - mean).square()).sqrt())
            return {"value": mean, "deviation": deviation}
        assert isinstance(self.domain, ClassificationDomain)
        best = int(probabilities.argmax())
        named = dict(zip(self.domain.classes, probabilities.tolist(), strict=True))
        name = self.domain.classes[best]
        return {"label": name, "probability": named[name], "probabilities": named}

    def summary(self, log_prob: Tensor) -> str:
        """The answer in a line: the class and its probability, or the value and its deviation, with a tab between."""
        found = self.answer(log_prob)
        if "value" in found:
            return f"{found['value']:.4f}\t{found['deviation']:.4f}"
        return f"{found['label']}\t{found['probability']:.4f}"

    def correct(
        self,
        net: Autoregressor,
        data: TokenDataModule,
        split: Split,
        progress: Callable[[int], object] | None = None,
    ) -> Tensor | None:
        if isinstance(self.domain, RegressionDomain):
            return None
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
        """Accuracy, F1 and Matthews' correlation of classes; error and correlations of values."""
        log_prob, labels = split_log_prob(net, data, split, progress=progress)
        if isinstance(self.domain, RegressionDomain):
            values = self.domain.values
            predicted = log_prob.exp() @ values
            figures: dict[str, Any] = regression_figures(
                predicted, self.values(data, split, labels)
            )
            return {"regression": figures}
        return {
            "classification": dict(
                classification_figures(log_prob.argmax(-1), labels, self.domain.vocab_size)
            )
        }

    def values(self, data: Any, split: Split, labels: Tensor) -> Tensor:
        """The values of a split, (N,), as they are in the data; of training examples, of which some may be left out,
        the middles of their bins."""
        assert isinstance(self.domain, RegressionDomain)
        if split == "train":
            return self.domain.values[labels]
        return torch.tensor([float(e.label) for e in data.examples(split)], dtype=torch.float64)

    def items(self, data: TokenDataModule, split: Split) -> int:
        return len(data.dataset(split))  # type: ignore[arg-type]
