"""The exception for bad input, which the user can correct."""

import errno

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


def cannot_write(path: object, error: OSError, field: str = "file") -> UserError:
    """The error for a file that could not be written: its name, the reason, and what helps.

    Args:
        path: of the file.
        error: what the system answered.
        field: the option that names the file.
    """
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    mend = "free some space there, or choose" if full else "choose"
    reason = error.strerror or error
    return UserError(f"{field}: cannot write '{path}' ({reason}); {mend} a file you may write")
