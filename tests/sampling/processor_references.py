"""Each logits processor by its published formula, in plain Python, for one row: as slow and as direct as possible."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

INF = math.inf


@dataclass(frozen=True)
class Row:
    """What a processor may read of a row."""

    tokens: list[int]
    prompt: int  # tokens of the prompt
    end: int
    uniform: float = 0.0  # the random number of a processor that draws

    def counted(self, prompt: bool, window: int = 0) -> list[int]:
        tokens = self.tokens if prompt else self.tokens[self.prompt :]
        return tokens[-window:] if window else tokens


def probabilities(x: list[float]) -> list[float]:
    most = max(x)
    weights = [math.exp(value - most) for value in x]
    return [weight / math.fsum(weights) for weight in weights]


def entropy(p: list[float]) -> float:
    return -math.fsum(q * math.log(q) for q in p if q > 0)


def only(x: list[float], kept: set[int]) -> list[float]:
    return [value if i in kept else -INF for i, value in enumerate(x)]


def likeliest(x: list[float]) -> list[int]:
    return sorted(range(len(x)), key=lambda i: -x[i])


def until(order: list[int], p: list[float], mass: float) -> set[int]:
    """The first tokens of an order, until their probabilities sum to the mass."""
    kept: set[int] = set()
    for i in order:
        kept.add(i)
        if math.fsum(p[j] for j in kept) >= mass:
            break
    return kept


def greedy(s: Any, x: list[float], row: Row) -> list[float]:
    return only(x, {x.index(max(x))})


def temperature(s: Any, x: list[float], row: Row) -> list[float]:
    return [value / s.value for value in x]


def dynamic_temperature(s: Any, x: list[float], row: Row) -> list[float]:
    left = sum(value > -INF for value in x)
    share = entropy(probabilities(x)) / math.log(left) if left > 1 else 0.0
    t = s.low + (s.high - s.low) * share**s.exponent
    return [value / t for value in x]


def top_k(s: Any, x: list[float], row: Row) -> list[float]:
    return only(x, set(likeliest(x)[: s.k]))


def top_p(s: Any, x: list[float], row: Row) -> list[float]:
    return only(x, until(likeliest(x), probabilities(x), s.p))


def min_p(s: Any, x: list[float], row: Row) -> list[float]:
    p = probabilities(x)
    return only(x, {i for i in range(len(x)) if p[i] >= s.p * max(p)})


def typical(s: Any, x: list[float], row: Row) -> list[float]:
    p = probabilities(x)
    h = entropy(p)
    far = [abs(-math.log(q) - h) if q > 0 else INF for q in p]
    return only(x, until(sorted(range(len(x)), key=lambda i: far[i]), p, s.mass))


def epsilon(s: Any, x: list[float], row: Row) -> list[float]:
    p = probabilities(x)
    return only(x, {i for i in range(len(x)) if p[i] >= s.epsilon or x[i] == max(x)})


def eta(s: Any, x: list[float], row: Row) -> list[float]:
    p = probabilities(x)
    least = min(s.epsilon, math.sqrt(s.epsilon) * math.exp(-entropy(p)))
    return only(x, {i for i in range(len(x)) if p[i] >= least or x[i] == max(x)})


def top_n_sigma(s: Any, x: list[float], row: Row) -> list[float]:
    finite = [value for value in x if value > -INF]
    mean = math.fsum(finite) / len(finite)
    sigma = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / len(finite))
    return only(x, {i for i in range(len(x)) if x[i] >= max(x) - s.n * sigma})


def top_h(s: Any, x: list[float], row: Row) -> list[float]:
    p, kept, total = probabilities(x), set(), 0.0
    for i in likeliest(x):
        total += entropy([p[i]])
        if kept and total > s.share * entropy(p):
            break
        kept.add(i)
    return only(x, kept)


def xtc(s: Any, x: list[float], row: Row) -> list[float]:
    p = probabilities(x)
    likely = sorted((i for i in range(len(x)) if p[i] >= s.threshold), key=lambda i: (p[i], i))
    if row.uniform >= s.probability or len(likely) < 2:
        return x
    return only(x, set(range(len(x))) - set(likely[1:]))


def frequency_penalty(s: Any, x: list[float], row: Row) -> list[float]:
    count = Counter(row.counted(s.prompt, s.window))
    return [value - count[i] * s.penalty for i, value in enumerate(x)]


def presence_penalty(s: Any, x: list[float], row: Row) -> list[float]:
    seen = set(row.counted(s.prompt, s.window))
    return [value - s.penalty if i in seen else value for i, value in enumerate(x)]


def notes_penalty(s: Any, x: list[float], row: Row) -> list[float]:
    count = Counter(row.counted(s.prompt))
    least = min(value for value in x if value > -INF)
    out = []
    for i, value in enumerate(x):
        k = 1 + (s.frequency - 1) * count[i]
        if count[i]:
            k *= 1 + (s.presence - 1)
        out.append((value - least) / k)
    return out


def repetition_penalty(s: Any, x: list[float], row: Row) -> list[float]:
    seen = set(row.counted(s.prompt, s.window))
    if s.normalised:
        total = math.log(math.fsum(math.exp(value) for value in x))
        x = [value - total for value in x]
    scaled = [value / s.penalty if value > 0 else value * s.penalty for value in x]
    return [scaled[i] if i in seen else x[i] for i in range(len(x))]


def dry(s: Any, x: list[float], row: Row) -> list[float]:
    context = row.counted(s.prompt, s.window)
    longest: Counter[int] = Counter()
    for i in range(1, len(context)):  # the token at i follows context[:i]
        n = 0
        while n < i and context[i - 1 - n] == context[-1 - n] and context[-1 - n] not in s.breakers:
            n += 1
        longest[context[i]] = max(longest[context[i]], n)
    out = list(x)
    for token, n in longest.items():
        if n >= s.allowed and token not in s.breakers:
            out[token] -= min(s.multiplier * s.base ** (n - s.allowed), 1e4)
    return out


def no_repeat_ngram(s: Any, x: list[float], row: Row) -> list[float]:
    tokens = row.counted(s.prompt)
    seen = {tuple(tokens[i : i + s.n]) for i in range(len(tokens) - s.n + 1)}
    end = tuple(row.tokens[len(row.tokens) - s.n + 1 :])
    return [-INF if (*end, i) in seen else value for i, value in enumerate(x)]


def logit_bias(s: Any, x: list[float], row: Row) -> list[float]:
    return [value + s.bias.get(i, 0.0) for i, value in enumerate(x)]


def bad_words(s: Any, x: list[float], row: Row) -> list[float]:
    def completes(i: int) -> bool:
        after = [*row.tokens, i]
        return any(tuple(after[-len(word) :]) == tuple(word) for word in s.words)

    return [-INF if completes(i) else value for i, value in enumerate(x)]


def forced_tokens(s: Any, x: list[float], row: Row) -> list[float]:
    new = len(row.tokens) - row.prompt
    return only(x, {s.tokens[new]}) if new < len(s.tokens) else x


def min_new_tokens(s: Any, x: list[float], row: Row) -> list[float]:
    early = len(row.tokens) - row.prompt < s.n
    return only(x, set(range(len(x))) - {row.end}) if early else x


def max_new_tokens(s: Any, x: list[float], row: Row) -> list[float]:
    return only(x, {row.end}) if len(row.tokens) - row.prompt + 1 >= s.n else x


def keep_end(s: Any, x: list[float], row: Row) -> list[float]:
    out = reference(s.processor)(x, row)
    return [x[i] if i == row.end else value for i, value in enumerate(out)]


def mirostat(s: Any, x: list[float], row: Row) -> list[float]:
    p = probabilities(x)
    kept = {i for i in range(len(x)) if p[i] > 0 and -math.log2(p[i]) <= 2 * s.target}
    return only(x, kept or {x.index(max(x))})


def reference(processor: Any) -> Callable[[list[float], Row], list[float]]:
    """The formula of a processor with its arguments."""
    from arlm.sampling.processors import name_of

    formula = globals()[name_of(type(processor))]
    return lambda x, row: formula(processor, x, row)
