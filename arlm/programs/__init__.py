"""One decoding step written down as a list of operations, and the backends that run it."""
