"""Name resolution that gives no private address, whatever a name server says."""

from typing import Any

from scrapy.resolver import CachingHostnameResolver
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from atlas_ray.errors import FetchError
from atlas_ray.io.addresses import AddressRule


class CheckedResolver(CachingHostnameResolver):
    """Resolves names for Scrapy; a connection can only go to an address that was checked here.

    Attributes:
        refused: Hosts of which no address was allowed, each with the last refusal.
    """

    def __init__(self, reactor: Any, cache_size: int, rule: AddressRule) -> None:
        super().__init__(reactor, cache_size)
        self.rule = rule
        self.refused: dict[str, FetchError] = {}

    @classmethod
    def from_crawler(cls, crawler: Any, reactor: Any) -> "CheckedResolver":
        """Make the resolver of a process."""
        return cls(reactor, crawler.settings.getint("DNSCACHE_SIZE"), crawler.settings["ADDRESS_RULE"])

    def resolveHostName(  # noqa: N802
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        *rest: Any,
        **named: Any,
    ) -> IHostResolution:
        """Resolve a name; private addresses are left out."""
        receiver = _CheckedReceiver(self, resolutionReceiver, hostName, portNumber)
        return super().resolveHostName(receiver, hostName, portNumber, *rest, **named)  # type: ignore[arg-type]


@implementer(IResolutionReceiver)
class _CheckedReceiver:
    """Passes on the addresses of one resolution that are allowed."""

    def __init__(self, resolver: CheckedResolver, receiver: Any, host: str, port: int) -> None:
        self._resolver = resolver
        self._receiver = receiver
        self._host = host
        self._port = port

    def resolutionBegan(self, resolution: IHostResolution) -> None:  # noqa: N802
        self._receiver.resolutionBegan(resolution)

    def addressResolved(self, address: IAddress) -> None:  # noqa: N802
        try:
            self._resolver.rule.check_address(self._host, self._port, address.host)
        except FetchError as error:
            self._resolver.refused[self._host] = error
            return
        self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:  # noqa: N802
        self._receiver.resolutionComplete()
