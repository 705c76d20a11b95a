"""Shared parts of pixel networks: base class, heads, two streams, mixture of logistics."""
