"""Networks: one file, one family, one paper."""
