"""The `spiffe` library from PyPI as a client of a Workload API: one command a process, one JSON line an answer.

    python -m tests.kit.spiffe_client SOCKET x509 | bundles | watch
                                      | jwt AUDIENCE | jwt-bundles | watch-jwt | validate AUDIENCE TOKEN

A process of its own, because the classes that it generates clash with others. An error is `{"error": kind, "detail"}`.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def main(socket: str, command: str, *arguments: str) -> None:
    """Do one command; print what came of it."""
    from spiffe import WorkloadApiClient

    try:
        with WorkloadApiClient(socket, default_timeout=10.0) as client:
            _COMMANDS[command](client, *arguments)
    except Exception as error:
        say({"error": type(error).__name__, "detail": str(error)})


def x509(client: Any) -> None:
    context = client.fetch_x509_context()
    say(_x509(context))


def bundles(client: Any) -> None:
    say({domain.name: len(bundle.x509_authorities) for domain, bundle in _by_domain(client.fetch_x509_bundles())})


def jwt(client: Any, audience: str) -> None:
    svid = client.fetch_jwt_svid({audience})
    say({"spiffe_id": str(svid.spiffe_id), "audience": sorted(svid.audience), "token": svid.token})


def jwt_bundles(client: Any) -> None:
    found = client.fetch_jwt_bundles()
    say({domain.name: sorted(bundle.jwt_authorities) for domain, bundle in _by_domain(found)})


def validate(client: Any, audience: str, token: str) -> None:
    svid = client.validate_jwt_svid(token, audience)
    say({"spiffe_id": str(svid.spiffe_id), "audience": sorted(svid.audience)})


def watch(client: Any) -> None:
    with _until_closed(client.stream_x509_contexts(lambda one: say(_x509(one)), _complain, True)):
        pass


def watch_jwt(client: Any) -> None:
    def tell(found: Any) -> None:
        say({domain.name: sorted(bundle.jwt_authorities) for domain, bundle in _by_domain(found)})

    with _until_closed(client.stream_jwt_bundles(tell, _complain, True)):
        pass


@contextmanager
def _until_closed(handler: Any) -> Iterator[None]:
    """Let a stream run until whoever started us closes our standard input."""
    yield
    sys.stdin.read()
    handler.cancel()


def _x509(context: Any) -> dict[str, Any]:
    svid = context.default_svid
    return {
        "spiffe_id": str(svid.spiffe_id),
        "serial": f"{svid.leaf.serial_number:x}",
        "chain": len(svid.cert_chain),
        "key_fits": svid.private_key.public_key() == svid.leaf.public_key(),
        "bundles": {domain.name: len(one.x509_authorities) for domain, one in _by_domain(context.x509_bundle_set)},
    }


def _by_domain(bundle_set: Any) -> list[tuple[Any, Any]]:
    return sorted(((one.trust_domain, one) for one in bundle_set.bundles), key=lambda pair: pair[0].name)


def _complain(error: Exception) -> None:
    say({"error": type(error).__name__, "detail": str(error)})


_lock = threading.Lock()


def say(value: dict[str, Any]) -> None:
    with _lock:
        print(json.dumps(value), flush=True)


_COMMANDS: dict[str, Callable[..., None]] = {
    "x509": x509, "bundles": bundles, "jwt": jwt, "jwt-bundles": jwt_bundles, "validate": validate, "watch": watch,
    "watch-jwt": watch_jwt,
}  # fmt: skip

if __name__ == "__main__":
    main(*sys.argv[1:])
