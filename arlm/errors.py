"""The one exception of arlm that is the user's to mend."""


class UserError(ValueError):
    """Bad input, told in one line that names the field, the value and the mend.

    The command line prints it without a traceback and exits with code 2.
    """


def require(holds: bool, field: str, value: object, mend: str) -> None:
    """Refuse a value that is out of range."""
    if not holds:
        raise UserError(f"{field}: {value} is out of range; {mend}")
