"""Who may change what is served: holders of a key, or without any key this machine alone."""

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from fastapi import HTTPException, Request, Security, status
from fastapi.security import APIKeyHeader

from recsys.api.callers import Caller
from recsys.core.bounded import read_bounded
from recsys.errors import InputError

HEADER = "X-API-Key"
VARIABLE = "RECSYS_API_KEYS"
REMEDY = f"set api_keys=<file> or {VARIABLE}"
CALLER = "recsys.caller"
"""Where ``RequestGuard`` has left the ``Caller`` in the scope of a request."""

_HEADER = APIKeyHeader(name=HEADER, auto_error=False, description="Needed where keys are set.")
# For the API's description; the guard has read the header.
_Key = Annotated[str | None, Security(_HEADER)]
_HEX_LENGTH = 64
_MAX_BYTES = 1_000_000
# What a command line makes of a variable that is not set, by printf or by echo.
_BLANKS = ("", " ", "\n", "\r\n", " \n", "\t", "\0")
_BLANK_DIGESTS = frozenset(hashlib.sha256(blank.encode()).hexdigest() for blank in _BLANKS)


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> list[str]:
    """SHA-256 digests (hex) of keys, of the file and of the variable ``RECSYS_API_KEYS`` together.

    In a file there is one per line, and empty lines and ``#`` comments are passed over; in the
    variable they are parted by commas or spaces. Only digests are stored, so that neither gives a
    key away: make one with ``printf %s "$KEY" | sha256sum``.

    Raises:
        InputError: when the file is missing, or one of the two holds something else.
    """
    digests = []
    if file is not None:
        try:
            lines = read_bounded(file, _MAX_BYTES, "set api_keys=<file>").decode().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            found = "no text" if isinstance(error, ValueError) else str(error.strerror).lower()
            raise InputError(f"a file of keys at {file}", found, "set api_keys=<file>") from error
        texts = [line.split("#")[0].strip().split(" ")[0] for line in lines]
        digests = _checked([text for text in texts if text], str(file))
        if not digests:
            raise InputError(f"a key in {file}", "none", "add one, or set api_keys=null")
    if VARIABLE in environment:
        texts = environment[VARIABLE].replace(",", " ").split()
        if not texts:
            raise InputError(f"a key in {VARIABLE}", "none", "add one, or unset it")
        digests += _checked(texts, VARIABLE)
    return digests


def _checked(texts: Sequence[str], where: str) -> list[str]:
    for number, text in enumerate(texts, 1):
        if len(text) != _HEX_LENGTH or set(text.lower()) - set("0123456789abcdef"):
            raise InputError(
                f"SHA-256 digests of 64 hex digits in {where}",
                f"another text as number {number}",
                "write them with: printf %s KEY | sha256sum",
            )
        if text.lower() in _BLANK_DIGESTS:
            raise InputError(
                f"digests of keys in {where}",
                f"that of an empty key as number {number}",
                "choose a key, and write its digest with: printf %s KEY | sha256sum",
            )
    return [text.lower() for text in texts]


class Gate:
    """Knows keys, and who may do what without one.

    Args:
        digests: of keys, as from ``read_keys``.
    """

    def __init__(self, digests: Sequence[str]) -> None:
        self._digests = [bytes.fromhex(digest) for digest in digests]

    @property
    def has_keys(self) -> bool:
        """Whether any key is configured."""
        return bool(self._digests)

    def known(self, values: Sequence[bytes]) -> int | None:
        """The number of the known key in the values of ``X-API-Key``; None for none, or several."""
        if len(values) != 1 or not values[0]:
            return None
        given = hashlib.sha256(values[0]).digest()
        # Every digest is compared, each in constant time: the time tells nothing of them.
        equal = [hmac.compare_digest(given, digest) for digest in self._digests]
        return equal.index(True) if any(equal) else None

    def admits(self, caller: Caller) -> bool:
        """Whether ``admit`` lets this caller pass."""
        return caller.key is not None if self.has_keys else caller.elsewhere is None

    async def admit(self, request: Request, _key: _Key = None) -> None:
        """Let a request with a key pass, or without any keys one from this machine.

        For what changes what is served or stored, and for what tells histories. Answers 401, 403 or
        429 otherwise.
        """
        caller: Caller = request.scope[CALLER]
        if self.has_keys:
            check_key(caller)
        elif caller.elsewhere is not None:
            raise HTTPException(
                status.HTTP_403_FORBIDDEN,
                "expected a client on this machine, as no API keys are set; found "
                f"{caller.elsewhere}; {REMEDY}",
            )

    async def admit_known(self, request: Request, _key: _Key = None) -> None:
        """Let a request with a key pass, from wherever it comes; answer 401 or 429 otherwise."""
        check_key(request.scope[CALLER])


def check_key(caller: Caller) -> None:
    """Raise HTTPException unless the caller has a known key."""
    if caller.wait:
        raise HTTPException(
            status.HTTP_429_TOO_MANY_REQUESTS,
            f"expected few wrong keys; found many from {caller.client}; retry in {caller.wait} s",
            headers={"Retry-After": str(caller.wait)},
        )
    if caller.key is None:
        raise HTTPException(
            status.HTTP_401_UNAUTHORIZED,
            f"expected a known key in {HEADER}; found another or none",
            headers={"WWW-Authenticate": HEADER},
        )
