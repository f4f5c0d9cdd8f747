"""Settings that can never act, each only where it was written: a default that happens not to matter is no mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from sidecar.config.assemble import View
from sidecar.config.balanced import never_balanced
from sidecar.config.checked import never_checked
from sidecar.config.mistakes import Book
from sidecar.config.quantities import show_seconds
from sidecar.config.schema import AccessLog, Limits, MeshConfig, Timeouts
from sidecar.config.times import times

SHORTEST_LINE: Final = 4  # bytes of a header line: a name of one letter, a colon, CR, LF
SMALLEST_HEAD: Final = 128  # bytes; a request line, a Host line and what a sidecar adds hardly take less


def settings(config: MeshConfig, views: Sequence[View], book: Book) -> None:
    """Note every setting that can never act."""
    for view in views:
        service = view.built
        _timeouts(service.timeouts, f"{view.path}.timeouts", [view], book)
        _ends(service.timeouts, f"{view.path}.timeouts", book)
        _limits(service.limits, f"{view.path}.limits", book)
        _slow(service.limits, f"{view.path}.timeouts", book)
        _access_log(service.access_log, f"{view.path}.access_log", book)
        _files(view, book)
        _outbound(view, book)
        for upstream in view.outbound:
            never_balanced(view, upstream, book)
            never_checked(view, upstream, views, book)
        times(view, book)
        if service.env and not service.run:
            message = "is for the command under run:, and there is none"
            book.warn("MESH058", f"{view.path}.env", message, "add run:, or remove it")
    _stale(views, book)
    defaults = config.defaults
    _timeouts(defaults.timeouts, "defaults.timeouts", views, book)
    _ends(defaults.timeouts, "defaults.timeouts", book)
    _limits(defaults.limits, "defaults.limits", book)
    _slow(defaults.limits, "defaults.timeouts", book)
    _access_log(defaults.access_log, "defaults.access_log", book)


def _said(path: str, names: Iterable[str], book: Book) -> list[str]:
    """Those of the keys below this path that were written."""
    return [name for name in names if f"{path}.{name}" in book.places]


# ---- time-outs -----------------------------------------------------------------------------------------------------


def _speaks(protocol: str) -> Callable[[View], bool]:
    def speaks(view: View) -> bool:
        service = view.built
        spoken = {each.protocol for each in service.inbound} | {each.protocol for each in service.outbound}
        return bool({protocol, "auto"} & spoken) or (protocol == "http" and service.forward_proxy is not None)

    return speaks


def _calls_peers(view: View) -> bool:
    return any(each.unmeshed == "refuse" and each.protocol != "tcp" for each in view.built.outbound)


def _calls(view: View) -> bool:
    return any(each.protocol != "tcp" for each in view.built.outbound)


def _serves_http(view: View) -> bool:
    plain = any(each.unmeshed == "passthrough" and each.protocol != "tcp" for each in view.built.outbound)
    return plain or any(each.protocol != "tcp" for each in view.built.inbound)


def _detects(view: View) -> bool:
    service = view.built
    return "auto" in {each.protocol for each in service.inbound} | {each.protocol for each in service.outbound}


_NEEDS: Final[tuple[tuple[tuple[str, ...], Callable[[View], bool], str], ...]] = (
    (("detect",), _detects, "listeners and upstreams with protocol: auto, and there is none"),
    (("tcp_idle",), _speaks("tcp"), "raw TCP, and nothing here is protocol: tcp"),
    (
        ("request_head", "response_head", "total", "idle", "keep_alive", "slow"),
        _speaks("http"),
        "HTTP, and everything here is tcp",
    ),
    (("per_try",), _calls, "HTTP upstreams, and there is none"),
    (("pool_idle_peer",), _calls_peers, "HTTP upstreams within the mesh, and there is none"),
    (("pool_idle_app",), _serves_http, "plain HTTP to an application or an unmeshed host, and there is none"),
)


def _timeouts(timeouts: Timeouts, path: str, views: Sequence[View], book: Book) -> None:
    for names, needed, what in _NEEDS:
        if not any(map(needed, views)):
            for name in _said(path, names, book):
                book.warn("MESH050", f"{path}.{name}", f"never acts: it is about {what}", "remove it")


def _ends(timeouts: Timeouts, path: str, book: Book) -> None:
    if timeouts.lame_duck > 0 and timeouts.drain == 0 and _said(path, ("lame_duck", "drain"), book):
        key = "drain" if _said(path, ("drain",), book) else "lame_duck"
        message = f"drain 0s cuts what lame_duck {show_seconds(timeouts.lame_duck)} has kept letting in"
        book.warn("MESH052", f"{path}.{key}", message, "give drain the time that the longest requests take")


def _stale(views: Sequence[View], book: Book) -> None:
    """A pool must let go of a connection before the peer's sidecar closes it."""
    by_name = {view.name: view for view in views}
    for view in views:
        for upstream in view.outbound:
            target = by_name.get(upstream.value.to)
            if target is None or upstream.value.protocol == "tcp":
                continue
            ours, theirs = view.built.timeouts.pool_idle_peer, target.built.timeouts.keep_alive
            if ours >= theirs:
                path = f"{view.path}.timeouts.pool_idle_peer"
                message = (
                    f"pool_idle_peer {show_seconds(ours)} never acts toward {target.name}, which closes idle "
                    f"connections after its keep_alive of {show_seconds(theirs)}"
                )
                book.warn("MESH051", path, message, "make it shorter than the keep_alive of every upstream")
                break


# ---- limits and logs -----------------------------------------------------------------------------------------------


def _limits(limits: Limits, path: str, book: Book) -> None:
    said = _said(path, ("pool", "connections", "pending", "head_lines", "head_bytes", "streams"), book)
    if limits.pool > limits.connections and "pool" in said:
        message = f"more places than the {limits.connections} connections (limits.connections) that can ask for one"
        book.warn("MESH053", f"{path}.pool", message, "lower it, or raise connections")
    if limits.head_lines * SHORTEST_LINE > limits.head_bytes and "head_lines" in said:
        message = f"never acts: {limits.head_lines} lines do not fit into head_bytes, which is {limits.head_bytes}"
        book.warn("MESH054", f"{path}.head_lines", message, "lower it, or raise head_bytes")
    if limits.head_bytes < SMALLEST_HEAD and "head_bytes" in said:
        message = f"hardly any request has a head of {limits.head_bytes} bytes; nearly all would be refused with 431"
        book.warn("MESH059", f"{path}.head_bytes", message, "the default is 32KiB")
    if limits.pending == 0 and "pending" in said:
        message = "no request waits for a place in a full pool, so each one over limits.pool is refused at once"
        book.warn("MESH059", f"{path}.pending", message, "allow a moment: the default is 1s")
    if limits.streams == 0 and "streams" in said:
        message = "no place for any upgrade (WebSocket) and none for CONNECT, so each one is refused"
        book.warn("MESH059", f"{path}.streams", message, "the default is 0.4 of the descriptors")


def _slow(limits: Limits, timeouts: str, book: Book) -> None:
    if limits.body_rate is None and _said(timeouts, ("slow",), book):
        message = "never acts: limits.body_rate is off, so nobody can fall behind it"
        book.warn("MESH050", f"{timeouts}.slow", message, "remove it, or give a rate")


def _access_log(log: AccessLog, path: str, book: Book) -> None:
    if log.mode == "off":
        for name in _said(path, ("sample", "path", "headers"), book):
            book.warn("MESH055", f"{path}.{name}", "never acts: mode is off, so nothing is logged", "remove it")
    elif log.mode == "all" and log.sample > 0 and _said(path, ("sample",), book):
        book.warn("MESH055", f"{path}.sample", "never acts: mode is all, so every hop is logged", "remove it")


def _files(view: View, book: Book) -> None:
    log, audit = view.built.access_log, view.built.audit
    if log.mode != "off" and log.path == audit.path:
        message = f"both the access log and the audit go to {audit.path}, so their lines are mixed"
        book.warn("MESH060", f"{view.path}.audit.path", message, "give each its own file")


# ---- upstreams -----------------------------------------------------------------------------------------------------


def _outbound(view: View, book: Book) -> None:
    service = view.built
    if service.forward_proxy is not None and not service.outbound:
        message = "answers nothing but 403: no upstream is declared"
        book.warn("MESH057", f"{view.path}.forward_proxy", message, "add outbound:")
    led_to = {branch.to for each in service.outbound for route in each.routes for branch in route.split}
    for upstream in view.outbound if service.redirect is None else ():
        if upstream.value.listen is None and service.forward_proxy is None and upstream.value.name not in led_to:
            message = f"the application cannot reach {upstream.value.to}: no listen: here, and no forward_proxy:"
            book.warn("MESH056", upstream.path, message, "add listen: 127.0.0.1:PORT, or forward_proxy: to the service")
