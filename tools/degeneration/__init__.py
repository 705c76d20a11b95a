"""How decoding methods degenerate: texts of one network under every method, beside human text of equal length."""
