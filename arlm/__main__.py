"""`python -m arlm VERB ...` and the console script `arlm`."""

from __future__ import annotations

import importlib
import os
import sys
from io import TextIOWrapper

from arlm import __version__

TRAINER_VERBS = {
    "fit": "train a network",
    "validate": "likelihood on the validation split",
    "test": "likelihood on the test split",
    "predict": "draw samples within a Lightning run",
}
COMMANDS = {
    "sample": "draw samples from a checkpoint",
    "chat": "talk to a network that was trained on conversations",
    "next": "the likeliest next tokens after a prompt, before and after each processor",
    "evaluate": "likelihood of a checkpoint, beside baselines",
    "score": "likelihood of a text, an image or a pair, token by token",
    "classify": "the class of each text, or its value, with probabilities",
    "detect": "whether texts carry a watermark, with z and p",
    "attention": "what each head of each layer reads, as a picture or a page",
    "fill": "the likeliest tokens in the gaps of a text",
    "translate": "translate a file line by line, with beam search",
    "compare": "compare networks on the same tokens: a table and an HTML page",
    "runs": "list runs, with their data and figures",
    "show": "network, data, training and versions of a checkpoint",
    "adapter": "write the adapter of a run alone, without its base",
    "convert": "write a sharded checkpoint, of --trainer.strategy fsdp2, as one file",
    "configs": "list the configurations that ship with arlm, or print one",
}
ELSEWHERE = {"train": "fit", "generate": "sample"}  # names of these verbs in other tools
HELP = f"""usage: arlm VERB [options]          ({__version__})

Train, from a configuration (options of `arlm VERB --help` override it):
{chr(10).join(f"  {verb:10} {text}" for verb, text in TRAINER_VERBS.items())}

Use checkpoints and configurations:
{chr(10).join(f"  {verb:10} {text}" for verb, text in COMMANDS.items())}

  arlm fit --config digits_pixelcnn
  arlm sample runs/digits_pixelcnn -n 16 --out digits.png
"""


def main() -> int:
    """Run one verb; returns the exit code: 2 for bad input, 129, 130, 141 or 143 when interrupted."""
    # Late, because `entry` changes where modules are found.
    from arlm.cli.failures import side_errors_collected

    code, ignored = 0, list[str]()
    try:
        with side_errors_collected(ignored):
            code = checked()
    finally:
        if not code:  # otherwise they follow from what has been said
            sys.stderr.writelines(ignored)
    return code


def checked() -> int:
    """Run one verb; what it cannot do is said in one line."""
    import signal

    from arlm.cli.failures import discard_output, in_one_line, killed_worker, leave_at_once
    from arlm.errors import UserError

    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    try:
        code = run(verb)
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()
    except UserError as error:
        return fail(str(error))
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        discard_output()
        return 128 + 13  # SIGPIPE, which Windows has not
    except Exception as error:
        line = in_one_line(error, verb)
        if line is None:
            raise
        discard_output()
        code = fail(line)
        if killed_worker(error):
            leave_at_once(code)
        return code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return code


def run(verb: str) -> int:
    """Run one verb with the arguments of the command line; returns its exit code."""
    from arlm.cli.imports import quick_imports
    from arlm.cli.messages import nearest
    from arlm.errors import UserError

    if found := next((argument for argument in sys.argv if "\0" in argument), None):
        raise UserError(f"{found!r}: it has a null character; leave it out")
    if verb in ("-h", "--help", "help"):
        print(HELP, end="")
    elif verb == "--version":
        print(__version__)
    elif verb in COMMANDS:
        importlib.import_module(f"arlm.cli.{verb}").main(sys.argv[2:])
    elif verb in TRAINER_VERBS:
        with quick_imports():
            trainer = importlib.import_module("arlm.cli.trainer")
        return int(trainer.main())
    else:
        mend = nearest(ELSEWHERE.get(verb, verb), TRAINER_VERBS | COMMANDS, "see `arlm --help`")
        raise UserError(f"verb: {verb!r} is not known; {mend}")
    return 0


def fail(message: str) -> int:
    """Print an error in one line; returns the exit code for bad input."""
    print("arlm: error:", " ".join(message.split()), file=sys.stderr)
    return 2


def entry() -> None:
    """The console script, and `python -m arlm`; both import classes of the working folder.

    That folder is searched last, so that no file in it takes the place of an installed module.
    """
    if not sys.flags.safe_path:
        folder = os.getcwd()
        if sys.path[0] == folder:  # `python -m` puts it first
            del sys.path[0]
        sys.path.append(folder)
    if isinstance(sys.stdout, TextIOWrapper):  # names of files that are no UTF-8 can be printed
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())


if __name__ == "__main__":
    entry()
