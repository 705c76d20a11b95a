"""The exception for bad input, which the user can correct."""

LONGEST = 800  # characters of a message


class UserError(ValueError):
    """Bad input; the message names the field, the value and the correction in one line.

    The command line prints it without a traceback and exits with code 2. The message may quote a file that
    somebody else wrote: line breaks and terminal escapes are replaced, and the middle of a long one is cut.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        if len(line) > LONGEST:
            line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


def require(holds: bool, field: str, value: object, mend: str) -> None:
    """Raise a UserError for a value that is out of range, unless `holds`."""
    if not holds:
        raise UserError(f"{field}: {value} is out of range; {mend}")
