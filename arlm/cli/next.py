"""`arlm next RUN --prompt TEXT`: the distribution of the next token, before and after each logits processor.

With `--completions`, of the token that holds the last character of the prompt, which may end in the middle of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from arlm.cli.decoding import add_decoding_options, bind_all, chosen_processors
from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, add_run_options, open_network, print_json
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from arlm.core import Autoregressor
    from arlm.domains import Domain
    from arlm.sampling.processors import LogitsProcessor


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        "next",
        "The likeliest next tokens after a prompt: their probabilities under the network and after each logits "
        "processor, with the number of tokens that it keeps, the probability of those that it drops (the tail) and "
        "the entropy.",
    )
    add_run_options(parser)
    parser.add_argument("--prompt", default="", help="text before the token (default: none)")
    parser.add_argument(
        "--completions",
        action="store_true",
        help="rank what may complete a prompt that ends in the middle of a token, such as the t after 'impor'",
    )
    parser.add_argument("--label", type=int, help="class of the text, if the network needs one")
    parser.add_argument("--seed", type=int, default=0, help="for processors that draw (default 0)")
    add_decoding_options(parser, "Without these options, the network's distribution is shown.")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--top",
        type=int,
        default=10,
        help="number of tokens to show, and of continuations or completions (default 10)",
    )
    output.add_argument(
        "--sequences",
        type=int,
        metavar="N",
        help="also the likeliest continuations of N tokens, each with its exact probability under the network and "
        "as the processors have it drawn; unlikely ones are left out, those of at most 0.01 %% under both, or "
        "more with a vocabulary of over 838 tokens; --out then shows next tokens and continuations side by side",
    )
    output.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object for each stage, then with --sequences one of the continuations; with --completions, "
        "one of the completions alone",
    )
    output.add_argument("--out", help="a picture of all stages (.png)")
    options = parser.parse(arguments)
    require(options.top >= 1, "--top", options.top, "choose at least 1")
    if options.completions and options.out:
        raise UserError("--out: a picture shows the next token; omit it, or --completions")
    if options.completions and options.sequences is not None:
        raise UserError("--sequences: they begin after whole tokens; omit it, or --completions")
    if options.completions and not options.prompt:
        raise UserError("--completions: there is nothing to complete; give --prompt")

    with quick_imports():
        import torch

        from arlm.inference.next_token import described, likeliest, next_token, table
        from arlm.inference.sequences import (
            continuations_of,
            likeliest_rows,
            sequence_records,
            sequence_table,
        )
        from arlm.reports.files import check_writable, write_bytes
        from arlm.reports.tokens import visible
        from arlm.reports.view import view_of
        from arlm.sampling import class_labels, row_seeds

    processors = chosen_processors(options)
    net, domain, *_ = open_network(options)
    view = view_of(domain)
    view.check_verb("next", options.run)
    if options.out:
        check_writable(Path(options.out), "--out", (".png",))
    names = [described(processor) for processor in processors]  # with words, not with their tokens
    processors = bind_all(processors, domain)
    if options.completions:
        show_completions(options, net, domain, processors)
        return
    prompt = view.prompt(options.prompt, "--prompt")
    label = class_labels(net, options.label, 1)
    (seed,) = row_seeds(options.seed, 1)  # that of the first text of `arlm sample`
    stages = next_token(net, prompt, processors, label, seed, names)
    rows = None
    if options.sequences is not None:
        rows = continuations_of(net, prompt, options.sequences, processors, label)
    tokens = likeliest(stages[0], min(options.top, net.spec.vocab_size))
    texts = [view.pieces(torch.tensor([token]))[0] for token in tokens]
    shown = [visible(text) for text in texts]
    if options.json:
        for stage in stages:
            print_json(stage.record(tokens, texts))
    else:
        print(table(stages, tokens, shown))
    if rows is not None:
        chosen = likeliest_rows(rows, options.top)
        records = sequence_records(rows, chosen, lambda tokens: "".join(view.pieces(tokens)))
        names = [visible(record["text"]) for record in records]
        if options.json:
            print_json({"sequences": records})
        else:
            print("\n" + sequence_table(records, names))
    if options.out:
        # Late: they take matplotlib.
        from arlm.reports.decoding_rules import Rule, side_by_side
        from arlm.reports.next_token import picture

        if rows is None:
            image = picture(stages, tokens, shown)
        else:
            name = ", ".join(stage.name for stage in stages[1:]) or "network"
            rule = Rule(name, stages[0].log_prob, stages[-1].log_prob, rows)
            image = side_by_side([rule], tokens, shown, rows.tokens[chosen], names)
        print(write_bytes(image, Path(options.out)))


def show_completions(
    options: argparse.Namespace,
    net: Autoregressor,
    domain: Domain,
    processors: Sequence[LogitsProcessor],
) -> None:
    """Print the completions of the prompt: a table, or with --json one object."""
    from arlm.inference.completions import completions
    from arlm.reports.tokens import visible
    from arlm.sampling import class_labels, row_seeds

    tokenizer = domain.text_tokenizer
    assert tokenizer is not None  # the verb is for texts
    label = class_labels(net, options.label, 1)
    (seed,) = row_seeds(options.seed, 1)
    found = completions(net, tokenizer, options.prompt, processors, label, seed)
    shown = found[: options.top]
    if options.json:
        listed = [one._asdict() | {"text": options.prompt + one.added} for one in shown]
        print_json({"prompt": options.prompt, "count": len(found), "completions": listed})
        return
    texts = [visible(one.added) if one.added else "(the token ends here)" for one in shown]
    width = max(map(len, [*texts, "completion"]))
    print(f"rank  {'completion':{width}}  probability")
    for rank, (text, one) in enumerate(zip(texts, shown, strict=True), start=1):
        print(f"{rank:>4}  {text:{width}}  {100 * one.probability:>9.2f} %")
    rest = sum(one.probability for one in found[options.top :])
    print(f"{len(found) - len(shown)} others: {100 * rest:.2f} %")
