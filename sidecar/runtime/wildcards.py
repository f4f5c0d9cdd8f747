"""An upstream whose host is `*.` and a host: one upstream for each host that the application has asked for, made then.

They come and go with what is asked for, so there are never more than so many at a time: one that nobody uses makes
room. All of them bear the name of their entry, in metrics as in logs: names come from the configuration alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.errors import Overflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.schema_outbound import Outbound
    from sidecar.proxy.upstream import Upstream
    from sidecar.runtime.generation import Declared, Place

MOST: Final = 64  # hosts of one entry


class Many:
    """Those of one entry, in one generation."""

    def __init__(self, spec: Outbound, make: Callable[[str], Upstream], upstreams: dict[Place, Declared]) -> None:
        self._spec = spec
        self._make = make
        self._upstreams = upstreams  # of the generation
        self._hosts: dict[str, Upstream] = {}  # the one that was asked for last stands last

    def upstream(self, host: str) -> Upstream:
        """The upstream of this host. Raises Overflow where so many others are in use."""
        found = self._hosts.pop(host, None)
        if found is None:
            if len(self._hosts) >= MOST:
                self._make_room()
            found = self._make(host)
        self._hosts[host] = found
        return found

    def keep(self, host: str, upstream: Upstream) -> None:
        """One that the generation before has had is here again."""
        self._hosts[host] = upstream

    def _make_room(self) -> None:
        for host, upstream in self._hosts.items():
            if not any(place.open for place in upstream.places.values()):
                upstream.retire(None, upstream.now)
                del self._hosts[host]
                del self._upstreams["upstream", f"{self._spec.name} {host}"]
                return
        raise Overflow(f"{MOST} hosts of {self._spec.host} are in use at once")
