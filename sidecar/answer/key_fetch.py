"""Getting the key set of an issuer: from its URL, by OpenID discovery, or from a file. Bounded in size and time.

No redirect is followed, so nobody but the host that was named, by a certificate for its name, says which keys are
good; with discovery that host is the issuer, and it names the place of the keys (OpenID Connect Discovery 1.0 section
4). What is read there says `issuer` letter by letter as the configuration does (section 4.3), or is not believed.
"""

from __future__ import annotations

import os
import ssl
import stat
from typing import TYPE_CHECKING, Any, Final

import trio

from certs.errors import MeshError
from certs.strict_json import read
from sidecar.net.http_client import BadHttp, HttpClient
from sidecar.net.https import HttpsUrl, cause, connect
from sidecar.policy.jwk import MAX_MARKS, MAX_SET_BYTES, BadKeySet, KeySet

if TYPE_CHECKING:
    from sidecar.config.schema_tokens import Issuer

_DISCOVERY: Final = ".well-known/openid-configuration"
_OK: Final = 200
_MAX_ROOTS: Final = 1 << 20  # bytes


class CannotFetch(MeshError):
    """A key set could not be had, or cannot be used. Its text is for the operator."""

    name = "cannot_fetch_keys"


async def fetch(issuer: Issuer) -> KeySet:
    """The key set of an issuer, as of now. Raises CannotFetch within `issuer.within`."""
    try:
        with trio.fail_after(issuer.within):
            data = await (_from_file(issuer) if issuer.file else _from_network(issuer))
            return await trio.to_thread.run_sync(KeySet.parse, data)
    except trio.TooSlowError:
        raise CannotFetch(f"it did not answer within {issuer.within:g} s (`within`)") from None
    except BadKeySet as error:
        raise CannotFetch(str(error)) from None


async def _from_file(issuer: Issuer) -> bytes:
    try:
        return await trio.to_thread.run_sync(_read, issuer.file, MAX_SET_BYTES)
    except (OSError, ValueError) as error:
        raise CannotFetch(f"{issuer.file}: {getattr(error, 'strerror', None) or error}") from None


async def _from_network(issuer: Issuer) -> bytes:
    try:
        roots = ""
        if issuer.ca_file:
            roots = (await trio.to_thread.run_sync(_read, issuer.ca_file, _MAX_ROOTS)).decode("ascii")
        url = HttpsUrl.parse(issuer.url, query=True) if issuer.url else await _discovered(issuer, roots)
        return await _get(url, roots)
    except BadHttp as error:
        raise CannotFetch(f"its answer cannot be used: {error}") from None
    except (OSError, ssl.SSLError, trio.BrokenResourceError) as error:
        raise CannotFetch(f"it cannot be reached: {cause(error)}") from None
    except ValueError as error:
        raise CannotFetch(str(error)) from None


async def _discovered(issuer: Issuer, roots: str) -> HttpsUrl:
    """Where its keys are. Raises CannotFetch, ValueError, and what `_get` raises."""
    data = await _get(HttpsUrl.parse(issuer.issuer) / _DISCOVERY, roots)
    try:
        document: Any = read(data, most_marks=MAX_MARKS)
    except ValueError:
        raise CannotFetch("its OpenID configuration is not JSON, or has far too many members") from None
    if not isinstance(document, dict) or document.get("issuer") != issuer.issuer:
        raise CannotFetch("its OpenID configuration is that of another issuer")
    where = document.get("jwks_uri")
    if not isinstance(where, str):
        raise CannotFetch("its OpenID configuration does not say where its keys are (`jwks_uri`)")
    return HttpsUrl.parse(where, query=True)


async def _get(url: HttpsUrl, roots: str) -> bytes:
    """What is there, a whole 200. Raises CannotFetch, BadHttp, OSError, ssl.SSLError, trio.BrokenResourceError."""
    stream = await connect(url, roots)
    try:
        client = HttpClient(stream, url.authority, MAX_SET_BYTES)
        accepted = ((b"accept", b"application/json"), (b"connection", b"close"))
        answer = await client.request("GET", url.target, headers=accepted)
    finally:
        await trio.aclose_forcefully(stream)
    if answer.status != _OK:
        followed = "; redirects are not followed" if 300 <= answer.status < 400 else ""
        raise CannotFetch(f"{url} answered {answer.status}{followed}")
    return answer.body


def _read(path: str, most: int) -> bytes:
    """In a thread: a regular file of at most so many bytes. Raises OSError, ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for ever
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no file")
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is larger than {most} bytes")
    return data
