"""`arlm evaluate CKPT`: likelihood of a checkpoint on a split, beside baselines that know no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from arlm.commands import Parser, shows_progress


def main(arguments: Sequence[str]) -> None:
    """Run the verb."""
    parser = Parser("evaluate", "Likelihood of a checkpoint on a split, every token scored once.")
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument(
        "--baselines", action="store_true", help="fit simple models to the same training data too"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse(arguments)

    import torch
    from tqdm import tqdm

    from arlm.checkpoint import build, load
    from arlm.evaluation.baselines import baselines
    from arlm.evaluation.likelihood import Likelihood

    net, domain, data, _ = load(options.checkpoint)
    provenance = data.pop("provenance")
    module = build(data)
    module.prepare_data()
    if module.provenance() != provenance:
        print(f"note: the data differs from that of training: {provenance} then")

    scorers: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {type(net).__name__: net.log_prob}
    if options.baselines:
        scorers |= baselines(module)
    likelihoods = {name: Likelihood(domain.unit) for name in scorers}
    loader = module.loader(options.split)
    bar = tqdm(total=len(loader), desc=f"scoring {options.split}", disable=not shows_progress())
    with torch.inference_mode():
        for batch in loader:
            for name, log_prob in scorers.items():
                likelihoods[name].update(log_prob(batch.tokens), batch)
            bar.update()
    bar.close()

    rows = {
        name: {k: float(v) for k, v in likelihood.compute().items()}
        for name, likelihood in likelihoods.items()
    }
    counted = likelihoods[type(net).__name__]
    counts = {"tokens": int(counted.tokens), f"{domain.unit}s": int(counted.units)}
    if options.json:
        print(json.dumps({"split": options.split} | counts | {"data": provenance, "models": rows}))
        return
    told = ", ".join(f"{v} {k}" for k, v in counts.items())
    protocol = "".join(f", {provenance[k]}" for k in ("protocol",) if k in provenance)
    print(f"{provenance.get('name', 'data')}{protocol}, {options.split} split: {told}")
    width = max(map(len, rows))
    names = list(rows[type(net).__name__])
    print(" " * width, *(f"{name:>14}" for name in names))
    for name, row in rows.items():
        print(f"{name:{width}}", *(f"{row[column]:14.4f}" for column in names))
