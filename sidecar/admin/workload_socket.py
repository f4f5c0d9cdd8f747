"""The Unix socket of the Workload API: the one way on which the key of our SVID leaves this process.

Off by default. Without `allow_uids` the socket is 0600, so that the kernel lets in our own user and root alone; with it
the socket is 0666, and what decides is who the kernel says has connected (SO_PEERCRED). Either way each connection is
asked. Its folder must be ours or root's and writable by nobody else, or others could put a socket of theirs in our
place and hand our application an identity. We make it where it is missing.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from sidecar.admin.api import Acted
from sidecar.admin.unix import PeerCredentials, peer_credentials, remove
from sidecar.identity.workload_api import FetchJwt, WorkloadApi
from sidecar.net.grpc_server import GrpcLimits, serve_grpc
from sidecar.runtime.listening import CannotListen, bind_unix

if TYPE_CHECKING:
    from certs.bundle import BundleSet
    from certs.denylist import Denylist
    from certs.source import Source
    from certs.svid import X509Svid
    from sidecar.config import schema
    from sidecar.net.clock import Clock
    from sidecar.telemetry.log import Log

MAX_CONNECTIONS = 64
MAX_STRANGERS = 8  # connections of users who get nothing but PermissionDenied
STRANGERS = GrpcLimits(calls=4, message_bytes=4096, idle_seconds=10.0)


def make_folder(spoken: schema.WorkloadApi) -> Path:
    """The socket's folder, made where it is missing. Raises CannotListen where others could write in it."""
    folder = Path(spoken.listen.path).parent
    try:
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755 if spoken.allow_uids else 0o700)
        facts = folder.stat()
    except OSError as error:
        raise CannotListen(f"workload_api: {folder}: {error.strerror or error}") from None
    if facts.st_uid not in (0, os.geteuid()):
        raise CannotListen(f"workload_api: {folder} belongs to user {facts.st_uid}; take a folder of our own")
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CannotListen(
            f"workload_api: {folder} can be written by others, who could put a socket of theirs in place of ours; take"
            " a folder of its own"
        )
    return folder


async def serve_workload_api(
    spoken: schema.WorkloadApi,
    svids: Source[X509Svid],
    bundles: Source[BundleSet],
    denylists: Source[Denylist],
    fetch_jwt: FetchJwt,
    clock: Clock,
    log: Log,
    *,
    acted: Acted | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `acted` is told of whoever gets our identity or is refused it (call, 200 or 403, user,
    process). Raises CannotListen before it starts.
    """
    sock, inode = _listen(spoken, log)
    allowed = frozenset((os.geteuid(), 0, *spoken.allow_uids))

    def given(peer: PeerCredentials, call: str) -> None:
        if acted is not None:
            acted(call, 200, peer.uid, peer.pid)

    def may(peer: PeerCredentials) -> bool:
        return peer.uid in allowed

    methods = WorkloadApi(svids, bundles, fetch_jwt, clock, may, denylists, given).methods()
    places, strangers = trio.CapacityLimiter(MAX_CONNECTIONS), trio.CapacityLimiter(MAX_STRANGERS)

    async def connection(stream: trio.SocketStream) -> None:
        peer: PeerCredentials = peer_credentials(stream.socket)
        known = peer.uid in allowed
        if not known:
            log.warning("the Workload API refuses a user", uid=peer.uid, pid=peer.pid)
            if acted is not None:
                acted("connect", 403, peer.uid, peer.pid)
        room = places if known else strangers
        try:
            room.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await trio.aclose_forcefully(stream)
            return
        try:
            await serve_grpc(stream, methods, peer=peer, limits=None if known else STRANGERS)
        finally:
            room.release_on_behalf_of(stream)

    try:
        async with trio.open_nursery() as nursery:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            task_status.started()
            await trio.serve_listeners(connection, [listener], handler_nursery=nursery)
    finally:
        remove(Path(spoken.listen.path), inode)


def _listen(spoken: schema.WorkloadApi, log: Log) -> tuple[socket.socket, int]:
    """The listening socket, and the inode of its file. Raises CannotListen."""
    folder, path = make_folder(spoken), Path(spoken.listen.path)
    sock = bind_unix(spoken.listen)
    if spoken.allow_uids:
        path.chmod(0o666)
        if not folder.stat().st_mode & stat.S_IXOTH:
            log.warning("no other user reaches the Workload API", folder=str(folder), do="chmod o+x on it")
    return sock, path.lstat().st_ino
