"""Options of speculative decoding: what proposes tokens, and what was saved by it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from arlm.cli.parser import open_data, open_network
from arlm.errors import require

if TYPE_CHECKING:
    from arlm.core import Autoregressor
    from arlm.sampling import Speculation

TOKENS, MOST = 4, 1000  # proposals in a pass: by default, and at most


def add_draft_options(group: Any) -> None:
    """Add the options to an argument group."""
    group.add_argument(
        "--draft",
        metavar="RUN",
        help="draw faster, with a cheap model that proposes tokens: a smaller run with the same tokens, ngram (counted "
        "in the training data of the run), or lookup (what followed before in the same text); the texts are those of --noise gumbel without a draft, or of "
        "the --noise that is given",
    )
    group.add_argument(
        "--draft-tokens",
        type=int,
        help=f"tokens that are proposed for each pass of the network (default {TOKENS})",
    )


def open_draft(options: argparse.Namespace, net: Autoregressor) -> Speculation | None:
    """The draft of `--draft` for a network, or None without one."""
    if not options.draft:
        return None
    from arlm.sampling import Draft, NetworkDraft, PromptLookup, Speculation

    count = TOKENS if options.draft_tokens is None else options.draft_tokens
    require(1 <= count <= MOST, "--draft-tokens", count, f"choose 1 to {MOST}")
    draft: Draft
    if options.draft == "lookup":
        draft = PromptLookup()
    elif options.draft == "ngram":
        from arlm.core import device_of
        from arlm.inference.baselines import ngram

        own = argparse.Namespace(**vars(options) | {"data": None, "compile": False})
        draft = NetworkDraft(ngram(open_data(own).data).to(device_of(net)))
    else:
        own = argparse.Namespace(**vars(options) | {"adapter": None})  # it is for the run
        draft = NetworkDraft(open_network(own, options.draft).net)
    draft.check(net)
    return Speculation(draft, count)


def say_what_was_saved(speculation: Speculation | None, tokens: int) -> None:
    """Print passes and acceptance to stderr, after `tokens` were drawn."""
    if speculation is None:
        return
    rate = f"{speculation.acceptance:.1%}" if speculation.compared else "none"
    print(
        f"draft: {tokens} tokens in {speculation.passes} passes of the network; {rate} of "
        f"{speculation.compared} proposals accepted",
        file=sys.stderr,
    )
