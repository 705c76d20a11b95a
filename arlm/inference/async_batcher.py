"""Batching and streaming for asyncio: an event loop takes updates while a thread draws."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

from arlm.inference.batcher import Batcher, Request, Update

T = TypeVar("T")


class AsyncBatcher:
    """A batcher whose requests are asynchronous iterators.

        async for update in batcher.stream(Request(prompt, seed=0, new_tokens=50)):
            print(update.text, end="")

    An iterator that is closed cancels its request. Steps are taken by one thread at a time, while requests are open.

    Args:
        batcher: used by nothing else.
    """

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self._queues: dict[int, asyncio.Queue[Update | BaseException]] = {}
        self._driver: asyncio.Task[None] | None = None

    async def stream(self, request: Request) -> AsyncIterator[Update]:
        """The updates of a request.

        Raises:
            UserError: the request does not fit, or too many wait.
        """
        number = self.batcher.submit(request)
        queue = self._queues[number] = asyncio.Queue()
        self._wake()
        ended = False
        try:
            while not ended:
                found = await queue.get()
                ended = isinstance(found, BaseException) or found.finish is not None
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            self._queues.pop(number, None)
            if not ended:
                self.batcher.cancel(number)
                self._wake()

    def _wake(self) -> None:
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())

    async def _drive(self) -> None:
        """Take steps until no request is open."""
        while self.batcher.open:
            try:
                updates = await asyncio.to_thread(self.batcher.step)
            except (
                Exception
            ) as error:  # of the network or a processor: the rows in the slots are lost
                for number, queue in self._queues.items():
                    if not self.batcher.waits(number):
                        queue.put_nowait(error)
                continue
            for update in updates:
                if update.request in self._queues:
                    self._queues[update.request].put_nowait(update)


async def asynchronous(iterator: Iterator[T]) -> AsyncIterator[T]:
    """Take the values of an iterator, such as `completer.stream`, in a thread, so that the event loop goes on."""
    end = object()
    while (value := await asyncio.to_thread(next, iterator, end)) is not end:
        yield value  # type: ignore[misc]
