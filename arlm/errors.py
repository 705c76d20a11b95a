"""The one exception of arlm that is the user's to mend."""

LONGEST = 800  # characters of a message


class UserError(ValueError):
    """Bad input, told in one line that names the field, the value and the mend.

    The command line prints it without a traceback and exits with code 2. The message may quote a file that
    somebody else wrote: line breaks and terminal escapes are replaced, and the middle of a long one is cut.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        if len(line) > LONGEST:
            line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


def require(holds: bool, field: str, value: object, mend: str) -> None:
    """Refuse a value that is out of range."""
    if not holds:
        raise UserError(f"{field}: {value} is out of range; {mend}")
