"""A conversation with a network: each token of it is read once, whatever the number of turns.

    turn 1    <|user|> a <|assistant|> b <|end|>                      read: all but <|end|>
    turn 2                                       <|user|> c ...       read: <|end|> and what follows

The state of the row is kept from turn to turn. When the window of the network is full, the oldest turns are dropped, and
what remains is read again, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of
from arlm.domains import ConversationDomain
from arlm.domains.conversation import Conversation, Message
from arlm.errors import UserError, require
from arlm.inference.answers import banned
from arlm.inference.completer import stream
from arlm.sampling import Noise, Steps, Uniform, begin, row_seeds
from arlm.sampling.details import Block
from arlm.sampling.inference_context import inference_context
from arlm.sampling.processors import LogitsProcessor
from arlm.states import State

ROOM = 4096  # tokens of a conversation, for networks without a limit of their own
INTERRUPTED = "interrupted"
ANSWER = (
    4  # the oldest turns are dropped where less than this part of the window is left for an answer
)


class Reply(NamedTuple):
    """What the network answered."""

    text: str
    finish: str  # why it ended: "end", "length", "stop", "constraint" or "interrupted"
    tokens: int  # that were drawn
    read: int  # tokens of the conversation that the network read before it answered
    dropped: int  # messages that were left out of the conversation, the oldest ones


class Chat:
    """A conversation of one user with a network.

    Args:
        net: a network of conversations.
        domain: of its tokens.
        system: what the system says first, if anything.
        processors: of the draws, bound to the domain.
        noise: turns seeds, positions and logits into tokens.
        stop: strings that end an answer where they first occur; they are not shown.
        new_tokens: most tokens of an answer; by default those of the network's own rows.
        seed: of the answers.
    """

    def __init__(
        self,
        net: Autoregressor,
        domain: ConversationDomain,
        system: str = "",
        processors: Sequence[LogitsProcessor] = (),
        noise: Noise = Uniform(),  # noqa: B008  (frozen)
        stop: Sequence[str] = (),
        new_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        require(
            new_tokens is None or new_tokens >= 1, "new_tokens", new_tokens, "choose at least 1"
        )
        self.net, self.domain, self.noise, self.stop, self.seed = net, domain, noise, stop, seed
        self.processors = (*banned(domain), *processors)
        self.new_tokens = new_tokens or net.spec.length
        self.room = net.max_length or ROOM
        self._state: tuple[Tensor, State] | None = None
        self._read = 0  # tokens of the row that the state has taken
        self._begin_with([Message("system", system)] if system else [])

    def _begin_with(self, system: Conversation) -> None:
        """Start a conversation that a message of the system may begin."""
        nothing = torch.empty(0, dtype=torch.long)
        opening = self.domain.render(system, strict=True).tokens if system else nothing
        if len(opening) >= self.room - 1:
            raise UserError(
                f"system: its {len(opening)} tokens leave no room in the window of {self.room}; shorten it"
            )
        self.system, self._opening = list(system), opening
        self.reset()

    def reset(self) -> None:
        """Forget all but what the system said."""
        self.messages: list[Message] = list(self.system)
        self._turns: list[Tensor] = []  # tokens of each turn, what closes its answer included
        self._answered = 0  # turns, those that were dropped included
        self._forget_state()

    def resume(self, conversation: Conversation) -> None:
        """Continue a conversation that ends with an answer; what its system said takes the place of this one's."""
        own = conversation[:1] if conversation[0].role == "system" else self.system
        self._begin_with(own)
        conversation = conversation[conversation[0].role == "system" :]
        for i in range(0, len(conversation), 2):
            turn = conversation[i : i + 2]
            self._turns.append(self.domain.render(turn, strict=True).tokens)
            self.messages += turn
        self._answered = len(self._turns)

    @property
    def tokens(self) -> Tensor:
        """The row so far, (n,) int64."""
        return torch.cat([self._opening, *self._turns])

    def say(self, text: str, show: Callable[[str], object] | None = None) -> Reply:
        """Answer a user's message.

        Args:
            text: what the user says.
            show: called with each piece of the answer as soon as it is final.

        Raises:
            UserError: the message is empty, has characters that the tokenizer does not know, or fills the window; the
                conversation is as it was.
        """
        turn = self.domain.prompt([Message("user", text)], strict=True)
        dropped = self._excess(len(turn))
        if dropped:
            self._forget_state()
        row = torch.cat([self._opening, *self._turns[dropped:], turn])
        limit = min(self.room, len(row) + self.new_tokens)
        steps, read = self._begin(row, limit)
        observed, unread, pieces, finish = len(row), 0, list[str](), INTERRUPTED

        def observe(block: Block) -> None:
            nonlocal observed, unread
            observed = int(steps.state.lengths[0])
            unread = int(steps.state.ended[0])  # the network does not read a row's last token

        def answer(tokens: Tensor) -> str:
            return self.domain.answer(tokens[len(row) :])

        try:
            for piece in stream(steps, answer, self.stop, observe):
                pieces.append(piece.text)
                finish = piece.finish or finish
                if show and piece.text:
                    show(piece.text)
        except KeyboardInterrupt:
            pass  # what was drawn is kept
        state = steps.state
        size = int(state.lengths[0])
        drawn = state.tokens[0, len(row) : size].cpu()
        if not state.used and size == observed:  # else it was interrupted within a step: read again
            self._state = state.logits, state.network
            self._read = size - unread
        ended = len(drawn) > 0 and int(drawn[-1]) == self.domain.eos_id
        turn = torch.cat([turn, drawn, self.domain.closing[int(ended) :]])
        self._turns = [*self._turns[dropped:], turn]
        self._answered += 1
        said, first = "".join(pieces), len(self.system)
        said_before = self.messages[:first] + self.messages[first + 2 * dropped :]
        self.messages = [*said_before, Message("user", text), Message("assistant", said)]
        return Reply(said, finish, len(drawn), read, 2 * dropped)

    def _begin(self, row: Tensor, limit: int) -> tuple[Steps, int]:
        """Read what is new of a row; the steps of its answer, and how many tokens were read."""
        started, read = self._state, self._read
        self._forget_state()  # it is consumed
        if started is None:
            with inference_context(self.net):
                started = self.net.start(1, self.room)
        forced = torch.full((1, limit), -1, device=device_of(self.net))
        forced[0, : len(row)] = row
        seeds = row_seeds(self.seed, 1, self._answered)
        state = begin(
            *(self.net, forced, seeds, self.processors),
            noise=self.noise,
            started=started,
            read=read,
        )
        return Steps(self.net, state), len(row) - read

    def _excess(self, new: int) -> int:
        """How many of the oldest turns to drop so that a message of `new` tokens and an answer fit."""
        least = min(self.new_tokens, max(1, self.room // ANSWER))
        if len(self._opening) + new + 1 > self.room:
            raise UserError(
                f"message: its {new} tokens do not fit the network's window of {self.room} after the "
                f"{len(self._opening)} of the system; shorten it"
            )
        count = 0
        while self._turns[count:] and self._size(count) + new + least > self.room:
            count += 1
        return count

    def _size(self, dropped: int) -> int:
        """Tokens of the row without its oldest turns."""
        return len(self._opening) + sum(map(len, self._turns[dropped:]))

    def _forget_state(self) -> None:
        self._state, self._read = None, 0
