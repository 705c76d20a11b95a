"""`arlm evaluate CKPT`: likelihood of a checkpoint on a split, beside baselines; BLEU of translations."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from arlm.cli.parser import Parser, bar, shows_progress
from arlm.cli.translate import add_search, check_search

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.checkpoints import Loaded
    from arlm.core import Batch
    from arlm.data.module import TokenDataModule
    from arlm.evaluation.likelihood import Likelihood

    Scorer: TypeAlias = Callable[[Batch], Tensor]  # nats (B, T)


def main(arguments: Sequence[str]) -> None:
    """Run the verb."""
    parser = Parser("evaluate", "Likelihood of a checkpoint on a split, every token scored once.")
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument(
        "--data", help="a file of configs/data/ to read instead of the run's own data"
    )
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument(
        "--baselines", action="store_true", help="fit simple models to the same training data too"
    )
    add_search(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse(arguments)
    check_search(options)

    from arlm.cli.parser import with_data  # Lightning is imported only now
    from arlm.domains import TranslationDomain
    from arlm.inference.baselines import baselines, readable
    from arlm.inference.scorer import Reader

    loaded, module = with_data(options.checkpoint, options.data)
    net, domain, provenance = loaded.net, loaded.domain, module.provenance
    loader = module.loader(options.split)
    likelihoods = score({type(net).__name__: Reader(net)}, loader, domain.unit)
    if options.baselines:
        scorers = {name: without_context(scorer) for name, scorer in baselines(module).items()}
        likelihoods |= score(scorers, readable(module, options.split), domain.unit)

    rows = {
        name: {figure: float(value) for figure, value in likelihood.compute().items()}
        for name, likelihood in likelihoods.items()
    }
    counted = next(iter(likelihoods.values()))
    counts = {"tokens": int(counted.tokens), f"{domain.unit}s": int(counted.units)}
    if words := module.words(options.split):
        counts["words"] = words
        for name, likelihood in likelihoods.items():
            nats = float(likelihood.nats) / words
            rows[name] |= {
                "bits_per_word": nats / math.log(2),
                "word_ppl": math.exp(min(700, nats)),
            }
    told = translations(loaded, module, options) if isinstance(domain, TranslationDomain) else {}
    if options.json:
        record = {"split": options.split} | counts | {"data": provenance, "models": rows} | told
        print(json.dumps(record))
    else:
        named = ", ".join(provenance[k] for k in ("name", "protocol") if k in provenance)
        counted_as = ", ".join(f"{count} {what}" for what, count in counts.items())
        print(f"{named}, {options.split} split: {counted_as}")
        print_table(rows)
        for what, figures in told.items():
            print(
                f"{what}:",
                *(f"{k} {v:.2f}" if isinstance(v, float) else v for k, v in figures.items()),
            )


def translations(
    loaded: Loaded, module: TokenDataModule, options: argparse.Namespace
) -> dict[str, dict[str, float | str]]:
    """BLEU, chrF and exact matches of a split's translations."""
    from arlm.evaluation.bleu import score_translations
    from arlm.inference.translator import Translator

    search = {"beam": options.beam, "alpha": options.length_penalty}
    translator = Translator(loaded.net, loaded.domain, **search)  # type: ignore[arg-type]
    pairs = module.sentences(options.split)  # type: ignore[attr-defined]
    with bar("translating", "line", len(pairs.source)) as progress:
        found = translator.lines(pairs.source, "data", progress.update)
    scores = score_translations([ours.text for _, ours in found], pairs.target)
    return {f"translations, beam {options.beam}": scores._asdict()}


def without_context(log_prob: Callable[[Tensor], Tensor]) -> Scorer:
    """A baseline looks at the tokens only."""
    return lambda batch: log_prob(batch.tokens)


def score(scorers: dict[str, Scorer], loader: Iterable[Batch], unit: str) -> dict[str, Likelihood]:
    """The likelihood of one split under each scorer, from the same batches."""
    import torch
    from tqdm import tqdm

    from arlm.evaluation.likelihood import Likelihood

    likelihoods = {name: Likelihood(unit) for name in scorers}
    with torch.inference_mode():
        for batch in tqdm(loader, desc="scoring", disable=not shows_progress()):
            for name, log_prob in scorers.items():
                likelihoods[name].update(log_prob(batch), batch)
    return likelihoods


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """One row a model, one column a figure."""
    width = max(map(len, rows))
    figures = list(next(iter(rows.values())))
    print(" " * width, *(f"{name:>14}" for name in figures))
    for name, row in rows.items():
        print(f"{name:{width}}", *(f"{row[figure]:14.4f}" for figure in figures))
