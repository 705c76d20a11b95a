"""Interleaved timing: competitors run in turn, so that a change in the machine's speed affects all alike."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

from arlm.inference.memory import keep_freed_memory

Action = Callable[[], int]  # returns how many units of work it did: tokens, sentences
Run = Callable[[int], float]  # from a number of actions to the seconds per unit of work


def interleaved(
    actions: dict[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each run of each action by a clock, after one warm-up of each."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(repeats + 1):
        for name, action in actions.items():
            started = clock()
            action()
            if turn:
                seconds[name].append(clock() - started)
    return seconds


def in_turn(runs: dict[str, Run], times: int, repeats: int) -> dict[str, list[float]]:
    """Seconds per unit of work of each process from `in_processes`, in turn, after one warm-up of each."""
    timed: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            seconds = run(times)
            if turn:
                timed[name].append(seconds)
    return timed


def median(seconds: list[float]) -> float:
    """The median."""
    return statistics.median(seconds)


def machine() -> str:
    """One line on the software and threads of the measurement."""
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU"


def cpu_of(arguments: Sequence[str], **environment: str) -> float:
    """CPU seconds of a Python process with one thread, from its start to its end; its output is not shown.

    Args:
        arguments: of Python.
        environment: variables beside those of this process.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    given = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, env=given, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def in_processes(
    build: Callable[[Namespace, str], Action],
    options: Namespace,
    names: Iterable[str],
) -> dict[str, Run]:
    """Start a process for each name, since `keep_freed_memory` affects a whole process.

    Args:
        build: returns the action to time, given the options and a name; defined at the top of a module, so
            that it can be sent to a process.
        options: options of the benchmark, with `threads`.
        names: names of the actions; those that begin with "arlm" keep freed memory, as `fit` does.

    Returns: for each name, a function that runs the action `times` times and returns the seconds per unit.
    """
    context, runs = get_context("spawn"), {}
    for name in names:
        ours, theirs = context.Pipe()
        context.Process(target=_serve, args=(build, options, name, theirs), daemon=True).start()
        runs[name] = _remote(ours)
    return runs


def _remote(connection: Connection) -> Run:
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
        except EOFError:  # the main process has ended
            return
        started = time.perf_counter()
        done = sum(action() for _ in range(times))
        connection.send((time.perf_counter() - started) / done)
