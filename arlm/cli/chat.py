"""`arlm chat RUN`: a conversation with a network, on a terminal or driven by a script."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlm.cli.decoding import add_decoding_options, bind_all, chosen_noise, chosen_processors
from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, add_run_options, open_network, print_json
from arlm.cli.terminal import shown
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from arlm.inference.chat import Chat, Reply

COMMANDS = {
    "/reset": "forget the conversation; what the system said stays",
    "/save FILE": "write the conversation as a line of JSON, which `fit` and --history read",
    "/help": "show these lines",
    "/quit": "leave; so does the end of the input (Ctrl-D)",
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse and check the options."""
    parser = Parser(
        "chat",
        "Talk to a network that was trained on conversations: a line is a message, and the answer is printed while it "
        "is drawn. Commands: "
        + "; ".join(f"{name}, {text}" for name, text in COMMANDS.items())
        + ". Ctrl-C ends an answer.",
    )
    add_run_options(parser)
    parser.add_argument("--system", default="", help="what the system says before the conversation")
    parser.add_argument(
        "--history", metavar="FILE", help="a conversation to continue, as /save writes it"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the answers (default 0)")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        help="most tokens of an answer (default: those of a row in training)",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end an answer where this text first occurs, without it; repeat the option for several",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help='read a JSON object a line, {"content": "..."} or {"command": "/reset"}, and print one for each',
    )
    decoding = add_decoding_options(
        parser, "Without these options, answers come from the network's own distribution."
    )
    decoding.add_argument(
        "--noise",
        choices=["uniform", "gumbel"],
        help="how a token is drawn: from one random number (uniform, the default), or from one for each token (gumbel)",
    )
    options = parser.parse(arguments)
    options.draft = None
    new = options.max_new_tokens
    require(new is None or new >= 1, "--max-new-tokens", new, "choose at least 1")
    return options


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    options = parse(arguments)
    processors = chosen_processors(options)
    with quick_imports():  # late: --help and errors need no torch
        from arlm.data.conversations import conversations_in
        from arlm.inference.chat import Chat
        from arlm.inference.stops import check_stops
        from arlm.reports.view import view_of

    loaded = open_network(options)
    domain: Any = loaded.domain
    view_of(domain).check_verb("chat", options.run)
    check_stops(options.stop, domain)
    chat = Chat(
        *(loaded.net, domain, options.system, bind_all(processors, domain)),
        noise=chosen_noise(options, None),
        stop=options.stop,
        new_tokens=options.max_new_tokens,
        seed=options.seed,
    )
    if options.history:
        found = conversations_in(options.history, "--history", empty=True)
        if len(found) > 1:
            raise UserError(
                f"--history: '{options.history}' has {len(found)} conversations; give a file with one line"
            )
        if options.system and found[0][0].role == "system":
            raise UserError(
                "--system: the conversation of --history has a message of the system; omit it"
            )
        chat.resume(found[0])
    if options.json:
        serve(chat)
    else:
        talk(chat, sys.stdin is not None and sys.stdin.isatty())


def talk(chat: Chat, terminal: bool) -> None:
    """Answer each line; on a terminal a mistake is shown, and elsewhere it ends the program."""
    for where, line in typed() if terminal else piped():
        text = line.strip()
        try:
            if text.startswith("/"):
                result = obey(chat, text)
                if result is None:
                    return
                print(result)
            elif text:
                reply = chat.say(text, lambda piece: print(shown(piece), end="", flush=True))
                print(flush=True)
                tell(reply, chat)
        except KeyboardInterrupt:  # while the message was read
            if not terminal:
                raise
            print("\nnote: interrupted", file=sys.stderr)
        except UserError as error:
            if not terminal:
                raise UserError(f"{where}: {error}") from None
            print(f"arlm: {error}", file=sys.stderr)


def serve(chat: Chat) -> None:
    """Answer each line of JSON by one."""
    for where, line in piped():
        if not line.strip():
            continue
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        said = request.get("content") if isinstance(request, dict) else None
        command = request.get("command") if isinstance(request, dict) else None
        if not isinstance(said if command is None else command, str):
            raise UserError(
                f'{where}: it is no JSON object with a "content" or a "command"; write for example {{"content": "Hello"}}'
            )
        if said is not None and command is not None:
            raise UserError(f'{where}: it has a "content" and a "command"; write a line for each')
        try:
            if command is not None:
                result = obey(chat, command)
                if result is None:
                    return
                record = {"command": command, "result": result}
            else:
                reply = chat.say(str(said))
                named = {"role": "assistant", "content": reply.text}
                record = named | {k: v for k, v in reply._asdict().items() if k != "text"}
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        print_json(record)
        sys.stdout.flush()


def obey(chat: Chat, text: str) -> str | None:
    """Do what a command says; returns what is shown of it, or None to leave."""
    name, _, argument = text.strip().partition(" ")
    argument = argument.strip()
    if name == "/quit":
        return None
    if name == "/help":
        width = max(map(len, COMMANDS))
        return "\n".join(f"{command:{width}}  {what}" for command, what in COMMANDS.items())
    if name == "/reset":
        chat.reset()
        return "the conversation is forgotten"
    if name == "/save":
        from arlm.reports.files import write_text

        if not argument:
            raise UserError("/save: the file is missing; write /save FILE")
        if len(chat.messages) == len(chat.system):
            raise UserError("/save: nothing was said yet; say something first")
        messages = [message._asdict() for message in chat.messages]
        record = json.dumps({"messages": messages}, ensure_ascii=False)
        try:
            return str(write_text(record + "\n", Path(argument)))
        except UserError:
            raise
        except ValueError:  # a null character, or half of a surrogate pair
            raise UserError(
                f"/save: {argument!r} cannot name a file; choose another name"
            ) from None
    raise UserError(f"{name}: not known; the commands are {', '.join(COMMANDS)}")


def tell(reply: Reply, chat: Chat) -> None:
    """Say on stderr what the answer does not show."""
    if reply.dropped:
        print(
            f"note: the conversation filled the window of {chat.room} tokens; its {reply.dropped} oldest messages are "
            "dropped",
            file=sys.stderr,
        )
    if reply.finish not in ("end", "stop", "constraint"):
        print(
            f"note: the answer was cut ({reply.finish}) after {reply.tokens} tokens",
            file=sys.stderr,
        )


def typed() -> Iterator[tuple[str, str]]:
    """Lines from a terminal; Ctrl-C begins the line again, and Ctrl-D ends them."""
    with suppress(ImportError):  # Windows has none
        import readline  # noqa: F401  # lines can be edited, and earlier ones called back
    while True:
        try:
            yield "the terminal", input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\nCtrl-D or /quit leaves", file=sys.stderr)
        except UnicodeDecodeError as error:
            print(f"arlm: byte {error.start + 1} is not UTF-8", file=sys.stderr)


def piped() -> Iterator[tuple[str, str]]:
    """Lines of the standard input, each as soon as it is there."""
    from arlm.data.text_files import named_lines

    yield from named_lines("-")
