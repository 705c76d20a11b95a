"""Bits that a trained network needs for a text, in total and for each character.

python examples/likelihood.py runs/docs_transformer "The return statement leaves the function."
"""

import math
import sys

import arlm

if len(sys.argv) != 3:
    sys.exit(f"usage: {__doc__.splitlines()[2]}")
net, domain, *_ = arlm.load(sys.argv[1])
text = sys.argv[2]
tokens = domain.encode(text)
nats = -net.log_prob(tokens[None])[0]
print(f"{nats.sum() / math.log(2) / domain.units(tokens).sum():.3f} bits per {domain.unit}")
for character, surprise in zip(text, nats.tolist(), strict=True):
    print(f"{character!r:6} {surprise / math.log(2):5.2f} " + "#" * round(4 * surprise))
