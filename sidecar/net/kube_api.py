"""How a Kubernetes API server answers: lists in pages, refusals, and what to make of each. For whoever asks one.

What real ones do and this has to live with (Kubernetes API concepts, "Retrieving large results sets in chunks", "410
Gone responses"; API conventions, "Response Status Kind"): a list comes in pages, each with a token for the next; tokens
and versions are forgotten after some minutes (410); an overloaded server says 429 or 503 with the seconds to stay away;
one whose store was restored from a back-up knows of no version as high as ours and says 504; tokens of service accounts
are replaced in their file.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from sidecar.net.http_message import Answer, BadJson, find_header

MAX_TOKEN: Final = 16 * 1024
MAX_CA: Final = 1024 * 1024
LONGEST_STAY: Final = 120.0  # seconds for which a Retry-After keeps us away; API servers say 1 to 30
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class CannotAsk(Exception):
    """The API server cannot tell now, in words; `retry_after` is for how many seconds it wants to be left alone."""

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Gone(Exception):
    """The server does not know the version, or the page, from which we want to go on."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. `after` asks for the next one; empty: this was the last."""

    items: list[Any]
    version: str
    after: str


def read_page(answer: Answer, kind: str) -> Page:
    """The page in an answer of 200. Raises CannotAsk."""
    try:
        document = answer.json()
    except BadJson as error:
        raise CannotAsk(f"the list of {kind}: {error}") from None
    if document.get("kind") != f"{kind}List" or not isinstance(document.get("items"), list):
        raise CannotAsk(f"a {str(document.get('kind'))[:40]} was answered where a list of {kind} should be")
    meta = document.get("metadata")
    version = meta.get("resourceVersion") if isinstance(meta, dict) else None
    after = meta.get("continue") or "" if isinstance(meta, dict) else ""
    if not isinstance(version, str) or not version or not isinstance(after, str):
        raise CannotAsk(f"the list of {kind} has no resourceVersion")
    return Page(document["items"], version, after)


def forgotten(answer: Answer, verb: str) -> bool:
    """Whether it says that it does not know the version, or the page, from which we want to go on."""
    if answer.status == 410:
        return True
    if verb != "watch" or answer.status not in (400, 500, 504):
        return False
    return b"resource version" in answer.body.lower()  # "Too large resource version", "invalid resource version"


def retry_after(answer: Answer) -> float:
    """For how many seconds it wants to be left alone; 0 where it does not say, or says it as a date."""
    said = find_header(answer.headers, b"retry-after") or b""
    return min(float(said), LONGEST_STAY) if said.isdigit() and len(said) < 10 else 0.0


def told(answer: Answer) -> str:
    """What the Status in a refusal says, in one line."""
    try:
        return message(answer.json())
    except BadJson:
        return "it says no more"


def message(status: Any) -> str:
    """What a `Status` says, in one line."""
    said = status.get("message") if isinstance(status, dict) else None
    return f"it says: {shown(said.encode())}" if isinstance(said, str) and said else "it says no more"


def shown(data: bytes) -> str:
    """The beginning of what somebody else has sent, fit for a line of a log."""
    text = data[:300].decode("utf-8", "replace")
    return text if text.isprintable() else ascii(text)


def keep_alive(stream: trio.SSLStream[trio.SocketStream]) -> None:
    """Notice within a minute that the other side has gone without a word."""
    sock = stream.transport_stream.socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def load_token(path: str) -> bytes:
    """A service account's token, as it is now: Kubernetes replaces it. Raises CannotAsk."""
    token = _load(path, MAX_TOKEN, "the service account's token").strip()
    if not token or not token.isascii() or not token.decode().isprintable() or b" " in token:
        raise CannotAsk(f"{path} holds no token")
    return token


def load_ca(path: str) -> str:
    """The certificates to judge a server by, as PEM; empty for an empty path: those that the system trusts.

    Raises CannotAsk.
    """
    if not path:
        return ""
    text = _load(path, MAX_CA, "the API server's certificates").decode("ascii", "replace")
    if "BEGIN CERTIFICATE" not in text:
        raise CannotAsk(f"{path} holds no certificate")
    return text


def _load(path: str, most: int, what: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(most)
    except (OSError, ValueError) as error:
        raise CannotAsk(f"{what} cannot be read: {path}: {getattr(error, 'strerror', None) or error}") from None
