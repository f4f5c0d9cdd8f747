"""One fetch of a bundle from a SPIFFE bundle endpoint of the profile https_web. START at `fetch_bundle`.

The server is judged as a browser would: a chain to a root of the web's PKI (or of those that the operator named), and
the DNS name of the URL in its certificate. Redirects are not followed, whatever they lead to. The whole takes at most
ten seconds, and a bundle at most a mebibyte.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import trio

from ca.errors import FederationUnreachable
from certs.bundle import MAX_BUNDLE_BYTES
from sidecar.net.http_client import BadHttp, HttpClient

SECONDS = 10.0
HTTPS = 443
# The system's roots as one file: a confined process reads /etc, but not where the links of a folder of hashes may lead.
_SYSTEM_ROOTS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


async def fetch_bundle(url: str, web_roots: bytes = b"") -> bytes:
    """The document at this endpoint. Raises FederationUnreachable, saying why."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        with trio.fail_after(SECONDS):
            answer = await _get(host, parts.port or HTTPS, parts.path or "/", _context(web_roots))
    except trio.TooSlowError:
        raise FederationUnreachable(f"{host} did not answer within {SECONDS:g} s") from None
    except (OSError, BadHttp, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise FederationUnreachable(f"{host} cannot be asked: {_words(error)}") from error
    status, body = answer
    if status != 200:
        hint = "; redirects are not followed" if 300 <= status < 400 else ""
        raise FederationUnreachable(f"{host} answers {status}{hint}")
    if len(body) > MAX_BUNDLE_BYTES:
        raise FederationUnreachable(f"{host} serves {len(body)} bytes; at most {MAX_BUNDLE_BYTES} are read")
    return body


async def _get(host: str, port: int, path: str, context: ssl.SSLContext) -> tuple[int, bytes]:
    stream = await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True, ssl_context=context)
    try:
        client = HttpClient(stream, f"[{host}]" if ":" in host else host)
        accept = ((b"accept", b"application/json"), (b"connection", b"close"))
        answer = await client.request("GET", path, headers=accept)
    finally:
        await trio.aclose_forcefully(stream)
    return answer.status, answer.body


def _context(web_roots: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if web_roots:
        context.load_verify_locations(cadata=web_roots.decode("ascii", "replace"))
        return context
    for path in (ssl.get_default_verify_paths().cafile or "", *_SYSTEM_ROOTS):
        if path and Path(path).is_file():
            context.load_verify_locations(path)
            return context
    context.load_default_certs()
    return context


def _words(error: BaseException) -> str:
    """The cause in words: trio wraps what OpenSSL says."""
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else None
    cause = error if cause is None else cause
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {cause.verify_message}"
    return str(cause) or type(cause).__name__
