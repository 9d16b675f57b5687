"""Which text a database can store."""

from recsys.errors import InputError


def check_text(text: str, what: str) -> None:
    """Refuse what cannot be stored: PostgreSQL has no NUL, and UTF-8 no lone surrogates.

    Args:
        what: what the text is to the sender, e.g. ``title``.

    Raises:
        InputError: when the text holds one of them.
    """
    if "\0" in text:
        found = "a NUL character"
    else:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            found = f"half a surrogate pair at character {error.start + 1}"
        else:
            return
    raise InputError(f"{what} to be text that a database can store", found, "remove it")
