"""Rules on which addresses may be requested: the public internet, and private places that the user names.

A URL comes from a page or a catalogue that anyone may have written, so it may point at the machine
itself, at its network, or at a cloud's metadata service. It is checked twice: as it is written,
before each request and each hop of a redirect, and as the IP address that a connection is about to
go to, since a name may resolve to anything.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from atlas_ray.errors import ConfigError, FetchError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORTS = {"http": 80, "https": 443}
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Reachable like public addresses, but services of the cloud that the machine runs in.
CLOUD_INTERNAL = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24")))


def is_web(uri: str) -> bool:
    """Tell whether a URI is to be asked for over HTTP, in whatever case it names the scheme."""
    return uri[:8].lower().startswith(("http://", "https://"))


def is_public(ip: str) -> bool:
    """Tell whether an IP address is one of the public internet.

    An IPv6 address that carries an IPv4 address (mapped, 6to4, NAT64) is judged by that one.

    Raises:
        ValueError: if `ip` is no IP address.
    """
    address: IpAddress = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and address.is_site_local:
            return False
        address = inner or address
    if any(address in network for network in CLOUD_INTERNAL if network.version == address.version):
        return False
    # What is multicast or reserved may count as global: ff0e::1, 64:ff9b:1::1.
    return address.is_global and not address.is_multicast and not address.is_reserved


@dataclass(frozen=True)
class AddressRule:
    """A rule on which addresses may be requested: the public internet, and private places that the user names.

    Attributes:
        allow_private: `HOST:PORT`, or `HOST` for its ports 80 and 443. Exactly these may be private:
            with `127.0.0.1:8000` another port of the same machine stays refused, and so does
            `localhost:8000`.
    """

    allow_private: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, places: str) -> "AddressRule":
        """Read the private places from a text, separated by commas.

        Raises:
            ConfigError: naming a place that is neither HOST nor HOST:PORT.
        """
        return cls(frozenset(place.strip() for place in places.split(",") if place.strip()))

    def __post_init__(self) -> None:
        """Refuse what is neither HOST nor HOST:PORT."""
        for place in self.allow_private:
            try:
                _host_and_port(f"http://{place}/")
            except FetchError as error:
                raise ConfigError(f"{place!r} names no private place: {error.message}; expected HOST:PORT") from None
            if "/" in place or "?" in place or "#" in place:
                raise ConfigError(f"{place!r} names no private place; expected HOST:PORT")

    def check_url(self, url: str) -> None:
        """Refuse a URL that must not be requested, as far as its text tells.

        Raises:
            FetchError: `unsupported_uri` for another scheme than http and https, credentials or a
                malformed host; `forbidden_address` for a private IP address in any notation
                (`http://2130706433/` is one) and for `localhost`.
        """
        host, port = _host_and_port(url)
        if self._allowed(host, port):
            return
        ip = _literal(host)
        if ip is not None and not is_public(ip):
            raise FetchError("forbidden_address", f"{url[:200]!r} is the private address {ip}")
        if host == "localhost" or host.endswith(".localhost"):
            raise FetchError("forbidden_address", f"{url[:200]!r} is this machine itself")

    def check_address(self, host: str, port: int, ip: str) -> None:
        """Refuse the IP address that a host name has resolved to, before it is connected to.

        Args:
            host: The name in the URL.
            port: The port in the URL, or the default of its scheme.
            ip: The IP address that would be connected to.

        Raises:
            FetchError: `forbidden_address`.
        """
        if not self._allowed(host.lower().rstrip("."), port) and not is_public(ip):
            raise FetchError("forbidden_address", f"{host}:{port} resolves to the private address {ip}")

    def _allowed(self, host: str, port: int) -> bool:
        name = f"[{host}]" if ":" in host else host
        places = {place.lower() for place in self.allow_private}
        return f"{name}:{port}" in places or (port in DEFAULT_PORTS.values() and name in places)


def _host_and_port(url: str) -> tuple[str, int]:
    """Return a URL's host, lower case and in ASCII, and its port."""
    scheme = re.match(r"(https?)://", url, re.IGNORECASE)
    # Python drops line ends and tabs from a URL, so that it would not be checked as it is written.
    if scheme is None or re.search(r"[\x00-\x1f\x7f]", url):
        raise FetchError("unsupported_uri", f"{url[:200]!r}; expected http://HOST/... or https://HOST/...")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if ":" in host:
            ipaddress.IPv6Address(host)
        else:
            # As a browser reads it: full-width digits and ideographic full stops are what they look like.
            host = host.encode("idna").decode().lower().rstrip(".")
    except ValueError as error:
        raise FetchError("unsupported_uri", f"{url[:200]!r}: {error}") from None
    if "@" in parts.netloc:
        raise FetchError("unsupported_uri", f"{url[:200]!r} carries credentials")
    if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
        raise FetchError("unsupported_uri", f"{url[:200]!r} names no host")
    return host, DEFAULT_PORTS[scheme[1].lower()] if port is None else port


def _literal(host: str) -> str | None:
    """Return the IP address that a host is written as, if it is one; 127.1 and 0x7f000001 are, too."""
    if ":" in host:
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None
