"""Evaluation: add nats, tokens and units; divide last."""
