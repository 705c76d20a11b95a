"""Texts of `arlm sample`: drawn, streamed or searched for, and printed or written to a file."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlm.cli.parser import bar
from arlm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor
    from arlm.inference.beam_tree import BeamTree
    from arlm.inference.writer import Written
    from arlm.reports.view import View
    from arlm.sampling.processors import LogitsProcessor

SEPARATOR = "---"  # a line between two texts


def texts(
    options: argparse.Namespace,
    net: Autoregressor,
    view: View,
    processors: Sequence[LogitsProcessor],
    tree: BeamTree | None = None,
) -> int:
    """Draw `options.n` texts after each prompt, and print them; returns the number of tokens drawn.

    Args:
        options: of the verb.
        net: the network.
        view: of its domain.
        processors: of the draws.
        tree: collects a beam search.
    """
    from arlm.inference.writer import announce_slides, row_lengths
    from arlm.reports.files import write_text

    prompts = [prompt for prompt in read_prompts(options, view) for _ in range(options.n)]
    longest = max(row_lengths(net, prompts, options.max_new_tokens))
    searched = options.beam is not None or options.decoding == "fixed_point"
    if searched and net.max_length is not None and longest > net.max_length:
        option = "--beam" if options.beam is not None else "--decoding"
        raise UserError(
            f"{option}: rows of {longest} tokens exceed the window of {net.max_length}, which only slides "
            "where texts are drawn token by token; choose a smaller --max-new-tokens, or omit the option"
        )
    announce_slides(net, longest)
    if searched:
        found = search(options, net, view, processors, prompts, longest, tree)
    else:
        found = draw(options, net, view, processors, prompts)
    if not options.stream:
        shown = as_json(found, options) if options.json else joined([one.text for one in found])
        print(write_text(shown + "\n", Path(options.out)) if options.out else shown)
    return sum(one.tokens for one in found)


def read_prompts(options: argparse.Namespace, view: View) -> list[Tensor]:
    """The tokens (P,) of each prompt."""
    if not options.prompt_file:
        return [view.prompt(options.prompt, "--prompt")]
    from arlm.data.pairs import lines_of

    name = options.prompt_file
    lines = lines_of(Path(name), "--prompt-file")
    if not lines:
        raise UserError(f"--prompt-file: '{name}' is empty; write one prompt on each line")
    return [
        view.prompt(line, f"line {number} of '{name}'")
        for number, line in enumerate(lines, start=1)
    ]


def draw(
    options: argparse.Namespace,
    net: Autoregressor,
    view: View,
    processors: Sequence[LogitsProcessor],
    prompts: Sequence[Tensor],
) -> list[Written]:
    """Draw a text after each prompt: all in one batch, or with --stream one after the other."""
    from arlm.inference.writer import row_lengths, written
    from arlm.sampling import class_labels, row_seeds

    decode = view.domain.decode
    seeds, context = (
        row_seeds(options.seed, len(prompts)),
        class_labels(net, options.label, len(prompts)),
    )
    given: dict[str, Any] = {"processors": processors, "stop": options.stop}
    new = options.max_new_tokens
    if not options.stream:
        most = sum(row_lengths(net, prompts, new)) - sum(map(len, prompts))
        with bar("sampling", "tok", most) as progress:
            shown = given | {"context": context, "progress": progress.update}
            return written(net, decode, prompts, seeds, new, **shown)
    found = []
    for row, prompt in enumerate(prompts):
        if row:
            print(SEPARATOR)
        own = None if context is None else context[row : row + 1]
        show: Any = lambda text: print(text, end="", flush=True)  # noqa: E731
        found += written(net, decode, [prompt], [seeds[row]], new, context=own, show=show, **given)
        print()
    return found


def search(
    options: argparse.Namespace,
    net: Autoregressor,
    view: View,
    processors: Sequence[LogitsProcessor],
    prompts: Sequence[Tensor],
    length: int,
    tree: BeamTree | None,
) -> list[Written]:
    """Texts by beam search, or by fixed-point iteration; all have the same prompt."""
    from arlm.inference.writer import Written
    from arlm.sampling import beam_search, class_labels, fixed_point, row_seeds

    count, size, decode = len(prompts), len(prompts[0]), view.domain.decode
    if options.beam is not None:
        context = class_labels(net, options.label, 1)
        prompt = prompts[0][None] if size else None
        tokens, log_prob, _ = beam_search(
            *(net, 1, length),
            beam=options.beam,
            n_best=count,
            length_penalty=0.0,
            context=context,
            prompt=prompt,
            observe=tree.observe if tree else None,
        )
        scored = zip(tokens[0].cpu(), log_prob[0].tolist(), strict=True)
        return [Written(decode(row), length - size, -value) for row, value in scored]
    rows = fixed_point(
        net,
        row_seeds(options.seed, count),
        length,
        processors=processors,
        forced=prompts[0].expand(count, -1) if size else None,
        context=class_labels(net, options.label, count),
    )
    print(f"{rows.passes} passes for {length} positions", file=sys.stderr)
    nats = -rows.log_prob[:, size:].sum(1)
    return [
        Written(decode(row), length - size, value)
        for row, value in zip(rows.tokens.cpu(), nats.tolist(), strict=True)
    ]


def write_search(tree: BeamTree, options: argparse.Namespace, view: View) -> None:
    """Write a beam search as a picture or a page."""
    from arlm.reports.beam_tree import Search, write_tree

    title = options.prompt or f"a beam of {options.beam}"
    command = f"arlm sample {shlex.join(options.command)}"
    search = Search(title, tree, view, options.prompt)
    print(write_tree([search], Path(options.tree), command), file=sys.stderr)


def joined(texts: Sequence[str]) -> str:
    """Texts with a line of `SEPARATOR` between them."""
    return f"\n{SEPARATOR}\n".join(texts)


def as_json(found: Sequence[Written], options: argparse.Namespace) -> str:
    """One JSON object a line for each text: its number, the seed, the text, its drawn tokens and their nats."""
    return "\n".join(
        json.dumps({"index": index, "seed": options.seed, **one._asdict()}, ensure_ascii=False)
        for index, one in enumerate(found)
    )
