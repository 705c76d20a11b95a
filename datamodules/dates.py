"""Dates as people write them, to ISO 8601: generated, offline, and not to be solved without looking back.

"Fri, the 3rd of March 2017" -> "2017-03-03". A format is an order of parts, a way to write each of them,
and what stands between. Each way comes in training; some combinations are held out for the test.
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
# Whatever the machine's language.
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
HELD_OUT = 8  # one format in so many is for the test, and one for validation


class Format(NamedTuple):
    """How a date is written."""

    order: str
    day: str
    month: str
    year: str
    weekday: str

    def write(self, date: datetime.date) -> str:
        """The date in words."""
        day, month, weekday = date.day, NAMES[date.month - 1], WEEK[date.weekday()]
        ending = "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
        parts = {
            "d": day,
            "th": f"{day}{ending}",
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
    """All formats, by split: a format is in one of them only, each of its parts in training too.

    A year of two digits stands for 2000 to 2099, told by its apostrophe.
    """
    by_split: dict[Split, list[Format]] = {"train": [], "val": [], "test": []}
    for parts in product(ORDERS, DAYS, MONTHS, YEARS, WEEKDAYS):
        one = Format(*parts)
        if one.day == "the {th} of" and one.order != ORDERS[0]:
            continue  # nobody writes "March the 3rd of, 2017"
        by_split[split_of("|".join(one), HELD_OUT)].append(one)
    return by_split


class Dates(ParallelDataModule):
    """Character by character; the formats of validation and test do not occur in training.

    Args:
        pairs: in the training split; validation and test have 1,000 each.
        length: as for ParallelDataModule.
        batch_tokens, seed, num_workers: as for ParallelDataModule; the seed does not move the data.
    """

    def __init__(
        self,
        pairs: int = 20000,
        length: int = 64,
        batch_tokens: int = 2048,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            *("human", "iso", "character"),
            min_count=1,
            joint=False,
            length=length,
            batch_tokens=batch_tokens,
            seed=seed,
            num_workers=num_workers,
        )
        require(pairs >= 1, "data.pairs", pairs, "choose at least 1")
        self.pairs = pairs

    def read(self, split: Split) -> Sentences:
        known = formats()[split]
        draw = random.Random(f"dates {split}")
        source, target = [], []
        for _ in range(self.pairs if split == "train" else 1000):
            style = draw.choice(known)
            first = datetime.date(2000, 1, 1) if "yy" in style.year else FIRST
            day = first + datetime.timedelta(days=draw.randrange((LAST - first).days + 1))
            source.append(style.write(day))
            target.append(day.isoformat())
        return Sentences(source, target)
