"""Hosts, addresses and networks, as the config writes them."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Any, Final

from sidecar.config.document import Scalar
from sidecar.config.plain import INTEGER, BadValue, Scope, quoted, text_of
from sidecar.config.terms import UNIX, Address

SUN_PATH: Final = 107  # unix(7): bytes of a socket's path, without the NUL at its end
_DNS_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_DNS_LABEL}\.)*{_DNS_LABEL}\Z")


def read_host(text: str) -> str:
    """An IP address in its usual form, or a DNS name in lower case. Raises BadValue."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ip_address(bare))
    except ValueError:
        pass
    if not _DNS_NAME.match(text) or text.rpartition(".")[2].isdigit():
        raise BadValue(f"{quoted(text)} is neither an IP address nor a DNS name")
    return text.lower()


def read_address(text: str) -> Address:
    """`host:port`. Raises BadValue."""
    host, colon, digits = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        hint = "did you mean " + (f"127.0.0.1:{text}?" if INTEGER.match(text) else f"{_host_hint(text)}:8080?")
        raise BadValue(f"{quoted(text)} is not host:port", hint)
    if not re.match(r"[1-9][0-9]{0,4}\Z", digits, re.ASCII) or int(digits) > 65535:
        raise BadValue(f"{quoted(digits)} is not a port", "it goes from 1 to 65535")
    if not host:
        raise BadValue(f"{quoted(text)} has no host", f"did you mean 127.0.0.1:{digits}?")
    return Address(read_host(host), int(digits))


def _host_hint(text: str) -> str:
    return f"[{text}]" if ":" in text else text[:64]


def address_of(scalar: Scalar, _: Scope) -> Address:
    if scalar.plain and INTEGER.match(scalar.text):
        raise BadValue(f"{scalar.text} is not host:port", f"did you mean 127.0.0.1:{scalar.text}?")
    return read_address(text_of(scalar))


def endpoint_of(scalar: Scalar, scope: Scope) -> Address:
    """`host:port`, or `unix:` and the path of a socket. Raises BadValue."""
    text = text_of(scalar)
    if text.startswith(UNIX):
        return Address(UNIX + read_socket_path(text.removeprefix(UNIX)), 0)
    if text.startswith(("/", "./", "../", "~")):
        raise BadValue(f"{quoted(text)} is not host:port", f"did you mean {UNIX}/{text.lstrip('./~')[:64]}?")
    return address_of(scalar, scope)


def socket_of(scalar: Scalar, scope: Scope) -> Address:
    """`unix:` and the path of a socket. Raises BadValue."""
    address = endpoint_of(scalar, scope)
    if not address.unix:
        raise BadValue(f"{quoted(scalar.text)} is not a Unix socket", f"write {UNIX}/run/mesh/api.sock")
    return address


def read_socket_path(path: str) -> str:
    """The path of a Unix socket. Raises BadValue."""
    if path.startswith("//"):
        raise BadValue(f"{quoted(UNIX + path)} is no path", f"did you mean {UNIX}/{path.lstrip('/')[:64]}?")
    if not path.startswith("/"):
        raise BadValue(f"{quoted(path)} is not an absolute path", f"write {UNIX}/run/app.sock")
    if path.endswith("/"):
        raise BadValue(f"{quoted(path)} is a folder", "name the socket in it")
    if not path.isprintable():
        raise BadValue(f"{quoted(path)} has control characters in it", "")
    size = len(path.encode())
    if size > SUN_PATH:
        raise BadValue(f"{quoted(path)} has {size} bytes", f"the kernel takes a socket's path of {SUN_PATH} at most")
    return path


def host_of(scalar: Scalar, _: Scope) -> str:
    try:
        return read_host(text_of(scalar))
    except BadValue as error:
        host, colon, port = scalar.text.rpartition(":")
        if colon and port.isdigit():
            raise BadValue(error.message, f'a host stands without port: "{host}"') from None
        raise


def ip_of(scalar: Scalar, _: Scope) -> str:
    try:
        return str(ip_address(text_of(scalar)))
    except ValueError:
        raise BadValue(f"{quoted(scalar.text)} is not an IP address", "write 127.0.0.1, 0.0.0.0 or ::") from None


def network_of(scalar: Scalar, _: Scope) -> Any:
    text = text_of(scalar)
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        hint = f"did you mean {ip_network(text, strict=False)}?"
    except ValueError:
        hint = "write 10.0.0.0/8 or fd00::/8"
    raise BadValue(f"{quoted(text)} is not a network in CIDR notation", hint)
