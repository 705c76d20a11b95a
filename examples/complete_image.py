"""Keep the upper half of test digits, and sample the lower half four times for each.

python examples/complete_image.py runs/digits_pixelcnn completed.png
"""

import sys
from pathlib import Path

import torch

import arlm
from arlm.reports.images import grid, write_image
from datamodules.digits import Digits

if len(sys.argv) != 3:
    sys.exit(f"usage: {__doc__.splitlines()[2]}")
net, domain, *_ = arlm.load(sys.argv[1])
digits = Digits().dataset("test").tokens[:8].long()  # (8, 64)
forced = digits.repeat_interleave(4, dim=0)
forced[:, forced.shape[1] // 2 :] = -1  # free
completed = arlm.generate(net, arlm.row_seeds(0, len(forced)), forced=forced).tokens
rows = torch.cat([digits[:, None], completed.view(8, 4, -1)], dim=1)  # the original first
print(write_image(grid(domain.decode(rows.flatten(0, 1)), columns=5), Path(sys.argv[2])))
