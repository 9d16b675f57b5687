"""Who asks, and whether a web page does: judged by the connection and the headers alone."""

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from recsys.errors import InputError

Headers = Iterable[tuple[bytes, bytes]]

_FORWARDED = b"x-forwarded"
_FORWARDING = frozenset(
    {
        b"cf-connecting-ip",
        b"cf-connecting-ipv6",
        b"client-ip",
        b"cluster-client-ip",
        b"fastly-client-ip",
        b"fly-client-ip",
        b"forwarded",
        b"true-client-ip",
        b"via",
        b"x-azure-clientip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-envoy-external-address",
        b"x-original-forwarded-for",
        b"x-original-host",
        b"x-originating-ip",
        b"x-proxyuser-ip",
        b"x-real-ip",
        b"x-remote-addr",
        b"x-remote-ip",
    }
)
_READ = frozenset(
    {
        b"host",
        b"origin",
        b"sec-fetch-site",
        b"content-type",
        b"content-length",
        b"transfer-encoding",
        b"x-api-key",
    }
)
_OWN_SITE = frozenset({b"same-origin", b"none"})
_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}
_JSON = re.compile(rb"application/(json|[\w.+-]+\+json)", re.IGNORECASE)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^:\[\]@/]+)(:\d{1,5})?")
# What one customer of a provider is given; each of its addresses is as good as the next.
_IPV6_PREFIX = 64


class Caller(NamedTuple):
    """What is known of who sent a request.

    client: what limits count by. key: the number of a known API key, else None. sent_key: whether
    any was sent. wait: seconds for which none is looked at, after too many wrong ones. elsewhere:
    why the request cannot be taken for one of a person or program on this machine, else None.
    """

    client: str
    key: int | None
    sent_key: bool
    wait: int
    elsewhere: str | None


class Told(NamedTuple):
    """What headers tell of who asks.

    values: of those that are looked at, by name. proxy: the name of a header that proxies add,
    where there is one.
    """

    values: Mapping[bytes, Sequence[bytes]]
    proxy: bytes | None

    def all(self, name: bytes) -> Sequence[bytes]:
        """Each value that was sent."""
        return self.values.get(name, ())


def read_headers(headers: Headers) -> Told:
    """One pass over the headers, whose names are in lower case."""
    values: dict[bytes, list[bytes]] = {}
    proxy = None
    for name, value in headers:
        if name in _READ:
            values.setdefault(name, []).append(value)
        elif name in _FORWARDING or name.startswith(_FORWARDED):
            proxy = name
    return Told(values, proxy)


def foreign_page(told: Told) -> str | None:
    """The other site whose page sent this, where a browser says that one did."""
    for site in told.all(b"sec-fetch-site"):
        if site not in _OWN_SITE:
            return f"Sec-Fetch-Site: {_shown(site)}"
    for origin in told.all(b"origin"):
        hosts = told.all(b"host")
        if len(hosts) != 1 or not _is_same(origin.lower(), hosts[0].lower()):
            return f"Origin: {_shown(origin)}"
    return None


@lru_cache(1024)
def _is_same(origin: bytes, host: bytes) -> bool:
    scheme, parted, name = origin.partition(b"://")
    port = _DEFAULT_PORTS.get(scheme)
    if not parted or port is None:
        return False
    return name.removesuffix(b":" + port) == host.removesuffix(b":" + port)


def is_json(method: str, told: Told) -> bool:
    """Whether a request that may change something holds JSON, or nothing at all.

    A form of another site can send neither: it always has a type of its own.
    """
    if method in _SAFE_METHODS:
        return True
    types = told.all(b"content-type")
    if not types:
        lengths = told.all(b"content-length")
        return not told.all(b"transfer-encoding") and all(not one.strip(b"0") for one in lengths)
    return all(_JSON.fullmatch(one.split(b";", 1)[0].strip()) for one in types)


@lru_cache(1024)
def client_of(address: str | None) -> str:
    """What counts as one client: an IPv4 address, or a network of IPv6 addresses."""
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or "local"
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), _IPV6_PREFIX), strict=False))


@lru_cache(1024)
def is_loopback(address: str | None) -> bool:
    """Whether a connection comes from this machine; None is that of a Unix socket."""
    if address is None:
        return True
    try:
        found: Any = ipaddress.ip_address(address)
    except ValueError:
        return False
    return bool((getattr(found, "ipv4_mapped", None) or found).is_loopback)


class HostNames:
    """The names by which this machine's own programs ask for it.

    Args:
        more: besides localhost and loopback addresses.

    Raises:
        InputError: when one of ``more`` is no host name.
    """

    def __init__(self, more: Collection[str] = ()) -> None:
        for name in more:
            if _name_of(name) != name.lower() or name == "*":
                raise InputError(
                    "host names without scheme and port in allowed_hosts",
                    repr(name),
                    "e.g. allowed_hosts=[recs.example.com]",
                )
        self._more = frozenset(name.lower() for name in more)
        self._known: dict[bytes, bool] = {}

    def include(self, hosts: Sequence[bytes]) -> bool:
        """Whether the values of ``Host`` are one, of this machine; a page's may be its own."""
        if len(hosts) != 1:
            return False
        found = self._known.get(hosts[0])
        if found is None:
            found = self._is_own(hosts[0].decode("latin-1"))
            if len(self._known) < 1024:
                self._known[hosts[0]] = found
        return found

    def _is_own(self, host: str) -> bool:
        name = _name_of(host)
        if name is None:
            return False
        return name == "localhost" or name in self._more or is_loopback(name.strip("[]"))


def _name_of(host: str) -> str | None:
    found = _HOST.fullmatch(host)
    return None if found is None else found["name"].lower()


def _shown(value: bytes) -> str:
    return value[:100].decode("latin-1")
