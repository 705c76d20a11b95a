"""Logits processors as machine code, between a pixel's logits and its draw in `arlm.programs.native_code`."""

from __future__ import annotations

import math

from arlm.programs.native_math import f32, fast

TEMPERATURE, TOP_K, TOP_P, MIN_P = range(4)  # as in `arlm.programs.native_backend.RULES`


@fast
def comes_before(logits, a, b):
    """Whether token a is likelier than token b, or as likely and of a smaller number."""
    return logits[a] > logits[b] or (logits[a] == logits[b] and a < b)


@fast
def sift(logits, heap, place, size):
    """Let the token at a place of a heap of tokens, the likeliest first, sink to where it belongs."""
    token = heap[place]
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and comes_before(logits, heap[child + 1], heap[child]):
            child += 1
        if not comes_before(logits, heap[child], token):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = token


@fast
def keep_likeliest(logits, heap, count, goal):
    """Mask all but the likeliest tokens: `count`, or fewer whose exponentials add up to the goal."""
    size, kept, mass = logits.shape[0], 0, 0.0
    for token in range(size):
        heap[token] = token
    for place in range(size // 2 - 1, -1, -1):
        sift(logits, heap, place, size)
    highest = float(logits[heap[0]])
    while size and kept < count and (kept == 0 or mass < goal):
        mass += math.exp(float(logits[heap[0]]) - highest)
        kept += 1
        size -= 1
        heap[0] = heap[size]
        sift(logits, heap, 0, size)
    for place in range(size):
        logits[heap[place]] = -math.inf


@fast
def apply_rules(logits, rules, heap):
    """Apply processors in order, as those of the same names in `arlm.sampling.processors` do; in place."""
    for rule in range(rules.shape[0]):
        kind, number = int(rules[rule, 0]), rules[rule, 1]
        if kind == TEMPERATURE:
            for v in range(logits.shape[0]):
                logits[v] /= f32(number)
        elif kind == TOP_K:
            keep_likeliest(logits, heap, int(number), math.inf)
        elif kind == TOP_P and number < 1:
            highest, total = float(logits.max()), 0.0
            for v in range(logits.shape[0]):
                total += math.exp(float(logits[v]) - highest)
            keep_likeliest(logits, heap, logits.shape[0], (number - 1e-12) * total)
        elif kind == MIN_P and number > 0:
            threshold = logits.max() + f32(math.log(number))
            for v in range(logits.shape[0]):
                if logits[v] < threshold:
                    logits[v] = -math.inf
