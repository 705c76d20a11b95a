"""Tasks on made texts whose labels are exact: brackets, agreement, entailment, similarity, choice, and a value.

Each takes seconds to make and minutes to learn, and a network that solves it must read the whole text.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from arlm.data.folders import Split, split_of
from arlm.data.labelled import Example
from arlm.data.labelled_module import LabelledTextModule
from arlm.domains.labelled import Form
from arlm.errors import require

PARTS = 10  # a text belongs to one split: one in ten to validation, one in ten to the test
Task = Literal["brackets", "agreement", "entailment", "similarity", "choice", "sum"]
Made = tuple[tuple[str, ...], str]  # texts and label
NOUNS = ("cat", "dog", "bird", "horse", "child", "king", "friend", "teacher")
PLURALS = {"child": "children"}
VERBS = ("sleep", "sing", "run", "smile")
PLACES = ("near", "behind", "beside", "above")
COLOURS = ("red", "green", "blue", "white", "black")
PAIRS = {"(": ")", "[": "]"}


def plural(noun: str) -> str:
    return PLURALS.get(noun, noun + "s")


def balanced(rng: random.Random, pairs: int) -> str:
    """A balanced text of so many pairs of brackets of two kinds."""
    text, open_ones, left = "", "", pairs
    while left or open_ones:
        if left and (not open_ones or rng.random() < 0.5):
            bracket = rng.choice("([")
            text, open_ones, left = text + bracket, open_ones + bracket, left - 1
        else:
            text, open_ones = text + PAIRS[open_ones[-1]], open_ones[:-1]
    return text


def is_balanced(text: str) -> bool:
    open_ones = ""
    for bracket in text:
        if bracket in PAIRS:
            open_ones += bracket
        elif not open_ones or PAIRS[open_ones[-1]] != bracket:
            return False
        else:
            open_ones = open_ones[:-1]
    return not open_ones


def brackets(rng: random.Random) -> Made:
    """Whether brackets of two kinds are balanced; those that are not differ in one bracket, or in two that changed places."""
    text = balanced(rng, rng.randint(2, 8))
    if rng.random() < 0.5:
        return (text,), "yes"
    while is_balanced(text):
        i, j = rng.sample(range(len(text)), 2)
        changed = list(text)
        if rng.random() < 0.5:
            changed[i] = rng.choice("()[]")
        else:
            changed[i], changed[j] = changed[j], changed[i]
        text = "".join(changed)
    return (text,), "no"


def agreement(rng: random.Random) -> Made:
    """Whether the verb agrees with its subject, from which other nouns separate it."""
    many = rng.random() < 0.5
    subject = rng.choice(NOUNS)
    words = ["the", plural(subject) if many else subject]
    for _ in range(rng.randint(0, 3)):
        other = rng.choice(NOUNS)
        words += [rng.choice(PLACES), "the", plural(other) if rng.random() < 0.5 else other]
    agrees = rng.random() < 0.5
    verb = rng.choice(VERBS)
    words.append(verb if many == agrees else verb + "s")
    return (" ".join(words),), "yes" if agrees else "no"


def facts(rng: random.Random, count: int) -> dict[str, str]:
    """Nouns and their colours."""
    return {noun: rng.choice(COLOURS) for noun in rng.sample(NOUNS, count)}


def told(known: dict[str, str]) -> str:
    return " and ".join(f"the {noun} is {colour}" for noun, colour in known.items())


def entailment(rng: random.Random) -> Made:
    """Premise: colours of some nouns. Hypothesis: one of them (entailment), another colour (contradiction), or one of
    a noun that the premise does not name (neutral)."""
    known = facts(rng, rng.randint(2, 4))
    label = rng.choice(["entailment", "contradiction", "neutral"])
    if label == "neutral":
        noun = rng.choice([n for n in NOUNS if n not in known])
        colour = rng.choice(COLOURS)
    else:
        noun, colour = rng.choice(list(known.items()))
        if label == "contradiction":
            colour = rng.choice([c for c in COLOURS if c != colour])
    return (told(known), f"the {noun} is {colour}"), label


def similarity(rng: random.Random) -> Made:
    """Whether two texts tell the same of the same nouns, in any order."""
    known = facts(rng, rng.randint(2, 3))
    items = list(known.items())
    rng.shuffle(items)
    label = rng.choice(["same", "different"])
    if label == "different":
        i = rng.randrange(len(items))
        noun, colour = items[i]
        items[i] = noun, rng.choice([c for c in COLOURS if c != colour])
    return (told(known), told(dict(items))), label


def choice(rng: random.Random) -> Made:
    """Which of three colours a noun of the text has."""
    known = facts(rng, rng.randint(2, 4))
    noun, colour = rng.choice(list(known.items()))
    options = [colour, *rng.sample([c for c in COLOURS if c != colour], 2)]
    rng.shuffle(options)
    return (f"{told(known)} . the {noun} is", *options), str(options.index(colour))


def total(rng: random.Random) -> Made:
    """The sum of the digits of a text, a value from 0 to 54."""
    digits = [rng.randint(0, 9) for _ in range(rng.randint(2, 6))]
    return (" ".join(map(str, digits)),), str(sum(digits))


class _Made(NamedTuple):
    make: Callable[[random.Random], Made]
    form: Form
    classes: list[str] | None
    tokenizer: str = "word"


TASKS: dict[str, _Made] = {
    "brackets": _Made(brackets, "classification", ["no", "yes"], "character"),
    "agreement": _Made(agreement, "classification", ["no", "yes"]),
    "entailment": _Made(entailment, "entailment", ["contradiction", "entailment", "neutral"]),
    "similarity": _Made(similarity, "similarity", ["different", "same"]),
    "choice": _Made(choice, "choice", ["0", "1", "2"]),
    "sum": _Made(total, "classification", None),
}


class MadeTask(LabelledTextModule):
    """Made texts of one task; no text of validation or test occurs in training, nor its pair or
    choices in another order.

    Args:
        task: "brackets": are they balanced; "agreement" of subject and verb; "entailment"; "similarity": do two texts tell
            the same; "choice": of three answers; "sum" of digits: a value, for regression.
        examples: training examples; validation and test have 1,000 each.
        length, batch_tokens, seed, num_workers: as for LabelledTextModule; the seed does not change the data.
    """

    def __init__(
        self,
        task: Task = "entailment",
        examples: int = 5000,
        length: int = 64,
        batch_tokens: int = 2048,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        require(task in TASKS, "data.task", task, f"choose {', '.join(get_args(Task))}")
        require(1 <= examples <= 10**6, "data.examples", examples, "choose 1 to 1000000")
        made = TASKS[task]
        super().__init__(
            form=made.form,
            classes=made.classes,
            value_range=[0.0, 55.0] if task == "sum" else None,
            bins=55,
            tokenizer=made.tokenizer,
            min_count=1,
            length=length,
            batch_tokens=batch_tokens,
            seed=seed,
            num_workers=num_workers,
        )
        self.task, self.count = task, examples

    def read(self, split: Split) -> list[Example]:
        made = TASKS[self.task].make
        rng = random.Random(f"{self.task} {split}")
        found: list[Example] = []
        wanted = self.count if split == "train" else 1000
        while len(found) < wanted:
            texts, label = made(rng)
            if split_of(self.split_key(texts), PARTS) == split:
                where = f"example {len(found) + 1} of {self.task}"
                found.append(Example(texts, label, where))
        return found
