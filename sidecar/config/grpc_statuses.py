"""Statuses of gRPC by name: `unavailable`, or in capitals, as its own documentation has them."""

from __future__ import annotations

from typing import Final

from sidecar.config.document import Scalar
from sidecar.config.mistakes import nearest
from sidecar.config.plain import BadValue, Scope, quoted, text_of
from sidecar.http.grpc import Status

GRPC_STATUSES: Final = {status.name.lower(): status.value for status in Status if status != Status.OK}  # failures


def read_grpc_status(scalar: Scalar, _: Scope) -> int:
    """The number of a status. Raises BadValue."""
    text = text_of(scalar)
    found = GRPC_STATUSES.get(text.lower())
    if found is not None:
        return found
    near = nearest(text.lower().replace("-", "_"), list(GRPC_STATUSES))
    if text.isdigit() and int(text) in GRPC_STATUSES.values():
        near = show_grpc_status(int(text))
    hint = f"did you mean {near}?" if near else "write unavailable, resource_exhausted, aborted, …"
    raise BadValue(f"{quoted(text)} is no status of gRPC that a failed call has", hint)


def show_grpc_status(value: int) -> str:
    """Its name."""
    return Status(value).name.lower()
