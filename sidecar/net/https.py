"""HTTPS toward somebody outside the mesh: an API server, an OIDC issuer. Judged by name and certificate, as on the web.

No redirect is followed: whoever is trusted says where things are, not somebody else. Time-outs are the caller's.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from sidecar.http.url import take_apart

# The system's roots as one file: a confined process reads /etc, but not where the links of a folder of hashes may lead.
SYSTEM_ROOTS: Final = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpsUrl:
    """An https URL, taken apart."""

    host: str
    port: int
    path: str
    query: str = ""  # with its question mark

    @classmethod
    def parse(cls, text: str, *, query: bool = False) -> HttpsUrl:
        """Read an https URL, which may have a query where that is allowed. Raises ValueError, in words."""
        try:
            parts = take_apart(text)
        except ValueError as error:
            said = "a URL" if "@" in text else f"{text[:120]!r}"
            raise ValueError(f"{said} {error}") from None
        if parts.scheme != "https":
            raise ValueError(f"{text[:120]!r} is not an https:// URL")
        if parts.query and not query:
            raise ValueError(f"{text[:120]!r}: a URL here has no query")
        return cls(parts.host, parts.port, parts.path, parts.query)

    def __truediv__(self, path: str) -> HttpsUrl:
        return HttpsUrl(self.host, self.port, f"{self.path.rstrip('/')}/{path}")

    @property
    def target(self) -> str:
        """What is asked for: path and query, as they were written."""
        return (self.path or "/") + self.query

    @property
    def authority(self) -> str:
        """What goes into a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}{'' if self.port == 443 else f':{self.port}'}"

    def __str__(self) -> str:
        return f"https://{self.authority}{self.path}{self.query}"


async def connect(
    url: HttpsUrl, ca_pem: str = "", own: ssl.SSLContext | None = None
) -> trio.SSLStream[trio.SocketStream]:
    """A connection to whoever shows a certificate for this host, from `ca_pem` or, without it, from those whom the
    system trusts. `own` is a fresh context that shows a certificate of ours.

    Raises OSError, ssl.SSLError, trio.BrokenResourceError.
    """
    context = await trio.to_thread.run_sync(tls_context, ca_pem, own)  # the system's roots take some 50 ms to read
    transport = await trio.open_tcp_stream(url.host, url.port)
    stream = trio.SSLStream(transport, context, server_hostname=url.host, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def tls_context(ca_pem: str = "", own: ssl.SSLContext | None = None) -> ssl.SSLContext:
    """What verifies chain and name of a server, by these roots or the system's. Raises OSError, ssl.SSLError."""
    context = own or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_pem:
        context.load_verify_locations(cadata=ca_pem)
        return context
    for path in (ssl.get_default_verify_paths().cafile or "", *SYSTEM_ROOTS):
        if path and Path(path).is_file():
            context.load_verify_locations(path)
            return context
    context.load_default_certs()
    return context


def cause(error: BaseException) -> str:
    """Why an exchange failed, in words: trio wraps what OpenSSL says."""
    inner = error.__cause__ or error.__context__ if isinstance(error, trio.BrokenResourceError) else error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {inner.verify_message}"
    return str(inner or error) or type(error).__name__
