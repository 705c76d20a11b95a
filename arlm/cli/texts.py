"""Texts of `arlm sample`: drawn, streamed or searched for, and printed or written to a file."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlm.cli.alternatives import token_records, token_table
from arlm.cli.drafting import open_draft, say_what_was_saved
from arlm.cli.parser import bar, finite
from arlm.cli.searches import Counted, check_room, contrasted, likeliest
from arlm.cli.terminal import shown
from arlm.cli.watermarks import watermark_name
from arlm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor
    from arlm.inference.beam_tree import BeamTree
    from arlm.inference.writer import Written
    from arlm.reports.view import View
    from arlm.sampling import Speculation
    from arlm.sampling.processors import LogitsProcessor

SEPARATOR = "---"  # a line between two texts


def texts(
    options: argparse.Namespace,
    net: Autoregressor,
    view: View,
    processors: Sequence[LogitsProcessor],
    tree: BeamTree | None = None,
) -> int:
    """Draw `options.n` texts after each prompt, and print each as soon as it is there.

    Args:
        options: of the verb.
        net: the network.
        view: of its domain.
        processors: of the draws.
        tree: collects a beam search.

    Returns: the number of tokens drawn.
    """
    from arlm.inference.capacity import check_capacity
    from arlm.inference.stops import check_stops
    from arlm.inference.writer import announce_slides, row_lengths
    from arlm.reports.files import writing_text

    check_stops(options.stop, view.domain)
    prompts = read_prompts(options, view)
    longest = max(row_lengths(net, prompts, options.max_new_tokens))
    contrastive = options.penalty_alpha is not None
    searched = options.beam is not None or options.decoding == "fixed_point" or contrastive
    window = net.max_length
    if contrastive and window is not None:
        check_room(len(prompts[0]), window)
        if options.max_new_tokens is None:
            longest = min(longest, window - 1)
    if searched and window is not None and longest + contrastive > window:
        option = "--beam" if options.beam is not None else "--decoding"
        option = "--penalty-alpha" if contrastive else option
        rows = f"{longest} tokens" + (", and one that is reserved," if contrastive else "")
        raise UserError(
            f"{option}: rows of {rows} exceed the window of {window}, which only slides "
            "where texts are drawn token by token; choose a smaller --max-new-tokens, or omit the option"
        )
    check_capacity(net, 1, longest, "--max-new-tokens", longest)
    announce_slides(net, longest)
    speculation = open_draft(options, net)
    if options.stream:
        total = stream(options, net, view, processors, prompts, speculation)
        say_what_was_saved(speculation, total)
        return total
    if searched:
        count = options.n if options.beam is None else options.beam
        option = "-n" if options.beam is None else "--beam"
        positions = 1 if options.beam is not None else longest
        check_capacity(net, count, longest, option, count, positions)
        if contrastive:
            found = Counted([contrasted(options, net, view, prompts[0], longest)])
        else:
            found = Counted(search(options, net, view, processors, prompts[0], longest, tree))
    else:
        found = Counted(draw(options, net, view, processors, prompts, speculation))
    kept = iter(found)
    if options.best_of is not None:
        kept = likeliest(kept, options.best_of, options.n)
    plain = str if options.out else shown
    with writing_text(Path(options.out)) if options.out else nullcontext(sys.stdout) as out:
        for index, one in enumerate(kept):
            separator = f"{SEPARATOR}\n" if index and not options.json else ""
            line = as_json(index, one, options, view) if options.json else plain(one.text)
            print(f"{separator}{line}", file=out, flush=not options.out)
            if one.drawn is not None and not options.json:
                print(f"\n{plain(token_table(one.drawn, view))}", file=out, flush=not options.out)
    if options.out:
        print(options.out)
    say_what_was_saved(speculation, found.tokens)
    return found.tokens


def read_prompts(options: argparse.Namespace, view: View) -> list[Tensor]:
    """The tokens (P,) of each prompt; `options.prompts` becomes their texts."""
    options.prompts = [options.prompt]
    if not options.prompt_file:
        return [view.prompt(options.prompt, "--prompt")]
    from arlm.cli.prompts import prompts_in

    name, options.prompts = options.prompt_file, prompts_in(options.prompt_file)
    return [
        view.prompt(line, f"line {number} of '{name}'")
        for number, line in enumerate(options.prompts, start=1)
    ]


def draw(
    options: argparse.Namespace,
    net: Autoregressor,
    view: View,
    processors: Sequence[LogitsProcessor],
    prompts: Sequence[Tensor],
    speculation: Speculation | None = None,
) -> Iterator[Written]:
    """Draw `options.n` texts after each prompt, or `best_of`, batch by batch; a text does not depend on its batch.

    Texts that are compared have one class: with `best_of` and no label, the classes are those of the prompts in turn.
    """
    from arlm.inference.capacity import rows_together
    from arlm.inference.writer import row_lengths, written
    from arlm.sampling import class_labels, row_seeds

    each = options.best_of or options.n
    new, count = options.max_new_tokens, len(prompts) * each
    longest = row_lengths(net, prompts, new)
    size = rows_together(net, max(longest))
    most = (sum(longest) - sum(map(len, prompts))) * each
    classes = class_labels(net, options.label, len(prompts) if options.best_of else count)
    if classes is not None and options.best_of:
        classes = classes.repeat_interleave(each, dim=0)
    given: dict[str, Any] = {"processors": processors, "noise": options.noise, "stop": options.stop}
    given |= {"speculation": speculation, "top": min(options.top or 0, net.spec.vocab_size)}
    with bar("sampling", "tok", most) as progress:
        for first in range(0, count, size):
            rows = range(first, min(first + size, count))
            yield from written(
                *(net, view.domain.decode, [prompts[row // each] for row in rows]),
                *(row_seeds(options.seed, len(rows), first), new),
                context=None if classes is None else classes[first : rows.stop],
                progress=progress.update,
                **given,
            )


def stream(
    options: argparse.Namespace,
    net: Autoregressor,
    view: View,
    processors: Sequence[LogitsProcessor],
    prompts: Sequence[Tensor],
    speculation: Speculation | None = None,
) -> int:
    """Draw texts one after the other, and print each piece at once; returns the number of tokens drawn."""
    from arlm.inference.writer import written
    from arlm.sampling import class_labels, row_seeds

    total = 0
    for row in range(len(prompts) * options.n):
        if row:
            print(SEPARATOR)
        (one,) = written(
            *(net, view.domain.decode, [prompts[row // options.n]]),
            *(row_seeds(options.seed, 1, row), options.max_new_tokens),
            processors=processors,
            noise=options.noise,
            stop=options.stop,
            context=class_labels(net, options.label, 1, row),
            speculation=speculation,
            show=lambda text: print(shown(text), end="", flush=True),
        )
        print()
        total += one.tokens
    return total


def search(
    options: argparse.Namespace,
    net: Autoregressor,
    view: View,
    processors: Sequence[LogitsProcessor],
    given: Tensor,
    length: int,
    tree: BeamTree | None,
) -> list[Written]:
    """`options.n` texts of `length` tokens after a prompt (P,), by beam search or by fixed-point iteration."""
    from arlm.inference.writer import Written
    from arlm.sampling import beam_search, class_labels, fixed_point, row_seeds

    count, size, decode = options.n, len(given), view.domain.decode
    if options.beam is not None:
        context = class_labels(net, options.label, 1)
        prompt = given[None] if size else None
        beams = beam_search(
            *(net, 1, length),
            beam=options.beam,
            n_best=count,
            length_penalty=0.0,
            processors=processors,
            seeds=row_seeds(options.seed, 1),
            context=context,
            prompt=prompt,
            observe=tree.observe if tree else None,
        )
        found = zip(
            *(beams.tokens[0].cpu(), beams.log_prob[0].tolist(), beams.lengths[0].tolist()),
            strict=True,
        )
        # Processors may leave fewer texts than were asked for.
        return [
            Written(
                decode(row[:end]), end - size, -value, finish(row[size:end], net, end == length)
            )
            for row, value, end in found
            if value > -math.inf
        ]
    rows = fixed_point(
        net,
        row_seeds(options.seed, count),
        length,
        processors=processors,
        forced=given.expand(count, -1) if size else None,
        context=class_labels(net, options.label, count),
        noise=options.noise,
    )
    print(f"{rows.passes} passes for {length} positions", file=sys.stderr)
    nats, ends = -rows.log_prob[:, size:].sum(1), rows.lengths.tolist()
    return [
        Written(decode(row[:end]), end - size, value, reason)
        for row, value, end, reason in zip(
            *(rows.tokens.cpu(), nats.tolist(), ends, rows.finish), strict=True
        )
    ]


def finish(drawn: Tensor, net: Autoregressor, full: bool) -> str:
    """Why a row ended that a search found: from its tokens (n,) after the prompt, and whether it has all it may have."""
    end = net.spec.eos_id
    if end is not None and bool((drawn == end).any()):
        return "end"
    return "length" if full else "constraint"


def write_search(tree: BeamTree, options: argparse.Namespace, view: View) -> None:
    """Write a beam search as a picture or a page."""
    from arlm.reports.beam_tree import Search, write_tree

    title = options.prompt or f"a beam of {options.beam}"
    command = f"arlm sample {shlex.join(options.command)}"
    search = Search(title, tree, view, options.prompt)
    print(write_tree([search], Path(options.tree), command), file=sys.stderr)


def as_json(index: int, one: Written, options: argparse.Namespace, view: View) -> str:
    """A JSON object for a text: number, seed, prompt, text, drawn tokens, nats, why it ended, and its watermark."""
    record = {"index": index, "seed": options.seed}
    if prompt := options.prompts[index // options.n]:
        record["prompt"] = prompt
    record |= one._asdict()
    drawn = record.pop("drawn")
    if drawn is not None:
        record["drawn"] = token_records(drawn, view)
    if options.watermark:
        # Without the key, which may be secret.
        record["watermark"] = watermark_name(options.watermark)
    return json.dumps(finite(record), ensure_ascii=False, allow_nan=False)
