"""How limits count: what `shared`, `over` and `redis:` can contradict, and what of them never acts."""

from __future__ import annotations

from typing import Final

from sidecar.config.assemble import Placed, View, is_loopback
from sidecar.config.mistakes import Book
from sidecar.config.quantities import show_seconds
from sidecar.config.schema_inbound import RateLimit

MOST_SHARED: Final = 100_000.0  # a second, of one key: about what one Redis can decide at all
_OF_DELAY: Final = ("delay", "waiting", "strikes", "block")


def contradictions(view: View, book: Book) -> None:
    """Note what cannot be done."""
    service = view.built
    for placed in view.rates:
        rate, path = placed.value, placed.path
        if rate.shared == "redis" and service.redis is None:
            hint = f"add redis: {{url: redis://HOST:6379}} to {view.path}, or to defaults"
            book.at(f"{path}.shared", f"{view.name} has no Redis to count in", hint)
        if rate.shared == "redis" and rate.over == "delay":
            hint = "put a limit with over: delay beside it, which each sidecar keeps by itself"
            book.at(f"{path}.over", "nobody can wait for a turn that other sidecars hand out", hint)
        if rate.shared == "redis" and rate.limit.per_second > MOST_SHARED:
            hint = f"at most {MOST_SHARED:.0f}/s, or let each sidecar count by itself"
            book.at(f"{path}.limit", f"{rate.limit} is more than one Redis can count", hint)


def never_act(view: View, book: Book) -> None:
    """Note what is allowed but does nothing, or less than it seems."""
    for placed in view.rates:
        _delay(placed, book)
    redis = view.built.redis
    if redis is None or f"{view.path}.redis" not in book.places:
        return
    path = f"{view.path}.redis"
    address = redis.url.address
    if redis.password_file and not redis.url.tls and not address.unix and not is_loopback(address.host):
        message = f"the password of {redis.url} travels in the clear"
        book.warn("MESH087", f"{path}.url", message, f"write rediss://{address}")
    if redis.ca_file and not redis.url.tls:
        book.warn("MESH088", f"{path}.ca_file", f"never acts: {redis.url} is not asked by TLS", "write rediss://")


def _delay(placed: Placed[RateLimit], book: Book) -> None:
    rate, path = placed.value, placed.path
    if rate.over == "refuse":
        for name in _OF_DELAY:
            if f"{path}.{name}" in book.places:
                message = "never acts: who is over this limit is refused at once"
                book.warn("MESH085", f"{path}.{name}", message, "remove it, or write over: delay")
    elif rate.delay * rate.limit.per_second < 1.0:
        shortest = show_seconds(1.0 / rate.limit.per_second)
        message = f"nobody ever waits: the next turn after a burst comes {shortest} later, and delay is less"
        book.warn("MESH086", f"{path}.over", message, f"write delay: {shortest} or more")
