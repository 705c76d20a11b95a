"""The two-sided trigram in plain Python, from the formulae of its docstring."""

from __future__ import annotations

from collections import Counter


def discounted(counts: Counter, lower: list[float], size: int, discount: float) -> list[float]:
    """(max(c - D, 0) + D N lower) / sum of c, for each of `size` tokens."""
    total, kinds = sum(counts.values()), len(counts)
    if not total:
        return lower
    return [
        (max(counts[w] - discount, 0) + discount * kinds * lower[w]) / total for w in range(size)
    ]


def discount(values: list[int]) -> float:
    once, twice = values.count(1), values.count(2)
    return once / (once + 2 * twice) if once and twice else 0.5


class Reference:
    """Counts of rows (lists of tokens)."""

    def __init__(self, rows: list[list[int]], size: int, kept: float) -> None:
        self.size, self.kept = size, kept
        self.found = Counter(
            (row[i - 1], row[i], row[i + 1]) for row in rows for i in range(1, len(row) - 1)
        )

    def _table(self, key) -> dict:
        table: dict = {}
        for (left, own, right), count in self.found.items():
            table.setdefault(key(left, right), Counter())[own] += count
        return table

    def _level(self, key, wanted, lower: list[float]) -> list[float]:
        table = self._table(key)
        d = discount([count for counts in table.values() for count in counts.values()])
        return discounted(table.get(wanted, Counter()), lower, self.size, d)

    def distribution(
        self, left: int | None, own: int | None, right: int | None, order: int
    ) -> list[float]:
        """p(w) of each token between neighbours, None where they are masked, given what is in its place."""
        one = self._level(lambda *both: 0, 0, [1 / self.size] * self.size)
        p = one
        if order == 3:
            after = one if left is None else self._level(lambda left, right: left, left, one)
            before = one if right is None else self._level(lambda left, right: right, right, one)
            q = [a * b / o for a, b, o in zip(after, before, one, strict=True)]
            p = [x / sum(q) for x in q]
            if left is not None and right is not None:
                p = self._level(lambda *both: both, (left, right), p)
        if own is not None:
            p = [
                x * ((w == own) * self.kept + (1 - self.kept) / self.size) for w, x in enumerate(p)
            ]
            p = [x / sum(p) for x in p]
        return p
