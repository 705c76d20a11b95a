"""Interleaved medians: what is compared is run in turn, so that a slow minute slows both alike."""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

from arlm.inference.memory import keep_freed_memory

Action = Callable[[], int]  # tells how many units of work it did: tokens, sentences
Run = Callable[[int], float]  # so many actions: the seconds for each unit


def interleaved(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run of each action, after one warm-up of each."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(repeats + 1):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def in_turn(runs: dict[str, Run], times: int, repeats: int) -> dict[str, list[float]]:
    """What each of the processes of `apart` tells, in turn, after one warm-up of each."""
    told: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            seconds = run(times)
            if turn:
                told[name].append(seconds)
    return told


def median(seconds: list[float]) -> float:
    """The middle one."""
    return statistics.median(seconds)


def machine() -> str:
    """One line on what the figures were measured with."""
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU"


def apart(
    build: Callable[[Namespace, str], Action],
    options: Namespace,
    names: Iterable[str],
) -> dict[str, Run]:
    """A process for each name, since `fit` sets how its whole process keeps memory.

    Args:
        build: makes what is timed from the options and a name; a function of a module.
        options: with `threads`.
        names: those that begin with "arlm" keep freed memory, as `fit` does.

    Returns: for each name, a function from a number of times to the seconds for each unit of work.
    """
    context, runs = get_context("spawn"), {}
    for name in names:
        ours, theirs = context.Pipe()
        context.Process(target=_serve, args=(build, options, name, theirs), daemon=True).start()
        runs[name] = _asker(ours)
    return runs


def _asker(connection: Connection) -> Run:
    def run(times: int) -> float:
        connection.send(times)
        return connection.recv()

    return run


def _serve(
    build: Callable[[Namespace, str], Action],
    options: Namespace,
    name: str,
    connection: Connection,
) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    action = build(options, name)
    if name.startswith("arlm"):
        keep_freed_memory()
    while True:
        try:
            times = connection.recv()
        except EOFError:  # whoever asked has ended
            return
        began = time.perf_counter()
        done = sum(action() for _ in range(times))
        connection.send((time.perf_counter() - began) / done)
