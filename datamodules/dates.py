"""Dates in many written formats, translated to ISO 8601; generated, without any download.

"Fri, the 3rd of March 2017" -> "2017-03-03". No part of the output can be guessed without attending to the
source. A format is an order of the parts of a date and a way to write each part. Every way to write a part
occurs in training; some combinations occur in validation and test only.
"""

from __future__ import annotations

import datetime
import random
from itertools import product
from typing import NamedTuple

from arlm.data.folders import Split, split_of
from arlm.data.pairs import Sentences
from arlm.data.parallel_module import ParallelDataModule
from arlm.errors import require

FIRST, LAST = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
# English names, independent of the machine's locale.
NAMES = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
WEEK = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
DAYS = ("{d}", "{d:02}", "{th}", "the {th}", "the {th} of")
MONTHS = ("{month}", "{mon}", "{mon}.", "{MONTH}", "{MON}")
YEARS = ("{y}", "in {y}", "'{yy}", "A.D. {y}")
WEEKDAYS = ("", "{weekday}, ", "{wd} ", "on {weekday}, ", "{WD}, ")
ORDERS = ("{day} {month} {year}", "{month} {day}, {year}", "{year}, {month} {day}")
HELD_OUT = 8  # one format in HELD_OUT is for the test, and one for validation


class Format(NamedTuple):
    """A way to write a date: templates for its order and parts."""

    order: str
    day: str
    month: str
    year: str
    weekday: str

    def write(self, date: datetime.date) -> str:
        """The date in this format."""
        day, month, weekday = date.day, NAMES[date.month - 1], WEEK[date.weekday()]
        suffix = "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
        parts = {
            "d": day,
            "th": f"{day}{suffix}",
            "month": month,
            "mon": month[:3],
            "MONTH": month.upper(),
            "MON": month[:3].upper(),
            "y": date.year,
            "yy": f"{date.year % 100:02}",
            "weekday": weekday,
            "wd": weekday[:3],
            "WD": weekday[:3].upper(),
        }
        filled = (part.format(**parts) for part in (self.day, self.month, self.year))
        words = dict(zip(("day", "month", "year"), filled, strict=True))
        return self.weekday.format(**parts) + self.order.format(**words)


def formats() -> dict[Split, list[Format]]:
    """All formats, by split; a format is in one split only, but each of its parts is in training too.

    A year of two digits, marked by an apostrophe, means 2000 to 2099.
    """
    by_split: dict[Split, list[Format]] = {"train": [], "val": [], "test": []}
    for parts in product(ORDERS, DAYS, MONTHS, YEARS, WEEKDAYS):
        style = Format(*parts)
        if style.day == "the {th} of" and style.order != ORDERS[0]:
            continue  # nobody writes "March the 3rd of, 2017"
        by_split[split_of("|".join(style), HELD_OUT)].append(style)
    return by_split


class Dates(ParallelDataModule):
    """Date formats, with characters as tokens; the formats of validation and test do not occur in training.

    Args:
        pairs: number of training pairs; validation and test have 1,000 each.
        length: as for ParallelDataModule.
        batch_tokens, seed, num_workers, joint: as for ParallelDataModule; the seed does not change the data.
    """

    def __init__(
        self,
        pairs: int = 20000,
        length: int = 64,
        batch_tokens: int = 2048,
        seed: int = 0,
        num_workers: int = 0,
        joint: bool = False,
    ) -> None:
        super().__init__(
            *("human", "iso", "character"),
            min_count=1,
            joint=joint,
            length=length,
            batch_tokens=batch_tokens,
            seed=seed,
            num_workers=num_workers,
        )
        require(pairs >= 1, "data.pairs", pairs, "choose at least 1")
        self.pairs = pairs

    def read(self, split: Split) -> Sentences:
        styles = formats()[split]
        rng = random.Random(f"dates {split}")
        source, target = [], []
        for _ in range(self.pairs if split == "train" else 1000):
            style = rng.choice(styles)
            first = datetime.date(2000, 1, 1) if "yy" in style.year else FIRST
            day = first + datetime.timedelta(days=rng.randrange((LAST - first).days + 1))
            source.append(style.write(day))
            target.append(day.isoformat())
        return Sentences(source, target)
