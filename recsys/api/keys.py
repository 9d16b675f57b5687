"""Who may change what is served: holders of a key, or without any key this machine alone."""

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from fastapi import HTTPException, Request, Security, status
from fastapi.security import APIKeyHeader

from recsys.core.bounded import read_bounded
from recsys.errors import InputError

HEADER = "X-API-Key"
VARIABLE = "RECSYS_API_KEYS"
_HEADER = APIKeyHeader(name=HEADER, auto_error=False, description="Needed where keys are set.")
_HEX_LENGTH = 64
_MAX_BYTES = 1_000_000


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
    return [text.lower() for text in texts]


class Gate:
    """Admits requests that carry a known key.

    Args:
        digests: of keys, as from ``read_keys``.
    """

    def __init__(self, digests: Sequence[str]) -> None:
        self._digests = [bytes.fromhex(digest) for digest in digests]

    def known(self, key: str | None) -> int | None:
        """The number of a key that is known, else None."""
        # Latin-1 is how headers are decoded: this is what was sent, byte by byte.
        given = hashlib.sha256((key or "").encode("latin-1")).digest()
        # Every digest is compared, each in constant time: the time tells nothing of them.
        equal = [hmac.compare_digest(given, digest) for digest in self._digests]
        return equal.index(True) if any(equal) else None

    def admit(self, request: Request, key: Annotated[str | None, Security(_HEADER)] = None) -> None:
        """Let a request with a key pass, or without any keys one from this machine.

        Answers 401 or 403 otherwise.
        """
        if self._digests:
            self.admit_known(key)
        elif not _is_loopback(request):
            raise HTTPException(
                status.HTTP_403_FORBIDDEN,
                "expected a client on this machine, as no API keys are set; found another; "
                f"set api_keys=<file> or {VARIABLE}",
            )

    def admit_known(self, key: Annotated[str | None, Security(_HEADER)] = None) -> None:
        """Let a request with a key pass, from wherever it comes; answer 401 otherwise."""
        if self.known(key) is None:
            raise HTTPException(
                status.HTTP_401_UNAUTHORIZED,
                "expected a known key in X-API-Key; found another or none",
                headers={"WWW-Authenticate": "X-API-Key"},
            )


def _is_loopback(request: Request) -> bool:
    if request.client is None:  # a Unix socket
        return True
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
