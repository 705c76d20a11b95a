"""Batches of tokens from files: data sets, their order, text, pairs, and the data modules' bases."""
