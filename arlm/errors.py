"""The exception for bad input, which the user can correct."""


class UserError(ValueError):
    """Bad input; the message names the field, the value and the correction in one line.

    The command line prints it without a traceback and exits with code 2.
    """


def require(holds: bool, field: str, value: object, mend: str) -> None:
    """Raise a UserError for a value that is out of range, unless `holds`."""
    if not holds:
        raise UserError(f"{field}: {value} is out of range; {mend}")
