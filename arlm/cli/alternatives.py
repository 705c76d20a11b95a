"""What `arlm sample --top` prints of each drawn token: both probabilities, and the likeliest alternatives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arlm.inference.writer import DrawnTokens
    from arlm.reports.view import View


def token_records(drawn: DrawnTokens, view: View) -> list[dict[str, Any]]:
    """Each token as plain values: id, text, nats under the network and under the distribution it comes from.

    Log-probabilities are in nats; that of a token that the processors dropped is None.
    """
    texts = view.pieces(drawn.tokens)
    names = {int(one): view.pieces(one[None])[0] for one in drawn.top.tokens.unique()}
    columns = (drawn.tokens, drawn.log_prob, drawn.processed_log_prob, *drawn.top)
    records = []
    for text, row in zip(
        texts, zip(*(part.tolist() for part in columns), strict=True), strict=True
    ):
        token, before, after, ids, own, processed = row
        each = zip(ids, own, processed, strict=True)
        others = [_record(one, names[one], first, second) for one, first, second in each]
        records.append(_record(token, text, before, after) | {"top": others})
    return records


def _record(token: int, text: str, before: float, after: float) -> dict[str, Any]:
    return {
        "token": token,
        "text": text,
        "log_prob": before,
        "processed_log_prob": after if after > -math.inf else None,
    }


def token_table(drawn: DrawnTokens, view: View) -> str:
    """A line for each token: its probability under the network, after the processors, and the alternatives."""
    from arlm.reports.tokens import visible

    records = token_records(drawn, view)
    names = [visible(record["text"]) for record in records]
    width = max(map(len, [*names, "token"]))
    lines = [f"{'token':{width}}   network      drawn   likeliest under the network"]
    for name, record in zip(names, records, strict=True):
        others = "  ".join(
            f"{visible(one['text'])} {_percent(one['log_prob'])}" for one in record["top"]
        )
        own, after = _percent(record["log_prob"]), _percent(record["processed_log_prob"])
        lines.append(f"{name:{width}}  {own:>8}   {after:>8}   {others}")
    return "\n".join(lines)


def _percent(nats: float | None) -> str:
    return "-" if nats is None else f"{100 * math.exp(nats):.2f} %"
