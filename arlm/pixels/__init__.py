"""What pixel networks share: their base class, heads, feature buffers, two streams, the mixture of logistics."""
