"""Who may change what is served: holders of a key, or without any key this machine alone."""

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import HTTPException, Request, Security, status
from fastapi.security import APIKeyHeader

from recsys.errors import InputError

HEADER = "X-API-Key"
_HEADER = APIKeyHeader(name=HEADER, auto_error=False, description="Needed where keys are set.")
_HEX_LENGTH = 64


def read_keys(file: Path | None) -> list[str]:
    """SHA-256 digests (hex) of keys, one per line; empty lines and ``#`` comments are passed over.

    Only digests are stored, so that the file gives no key away: make one with
    ``printf %s "$KEY" | sha256sum``.

    Raises:
        InputError: when the file is missing or holds something else.
    """
    if file is None:
        return []
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        found = (error.strerror or str(error)).lower()
        raise InputError(f"a file of keys at {file}", found, "set api_keys=<file>") from error
    digests = [line.split("#")[0].strip().split(" ")[0].lower() for line in lines]
    digests = [digest for digest in digests if digest]
    for number, digest in enumerate(digests, 1):
        if len(digest) != _HEX_LENGTH or set(digest) - set("0123456789abcdef"):
            raise InputError(
                f"SHA-256 digests of 64 hex digits in {file}",
                f"another text as number {number}",
                "write them with: printf %s KEY | sha256sum",
            )
    if not digests:
        raise InputError(f"a key in {file}", "none", "add one, or set api_keys=null")
    return digests


class Gate:
    """Admits requests that carry a known key; without keys, requests from this machine.

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
        """Let the request pass, or answer 401 or 403."""
        if self._digests:
            if self.known(key) is None:
                raise HTTPException(
                    status.HTTP_401_UNAUTHORIZED,
                    "expected a known key in X-API-Key; found another or none",
                    headers={"WWW-Authenticate": "X-API-Key"},
                )
        elif not _is_loopback(request):
            raise HTTPException(
                status.HTTP_403_FORBIDDEN,
                "expected a client on this machine, as no API keys are set; found another; "
                "set api_keys=<file>",
            )


def _is_loopback(request: Request) -> bool:
    if request.client is None:  # a Unix socket
        return True
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
