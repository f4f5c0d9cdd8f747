"""Applications and a sidecar that is none: they say who they are, and for where a connection was meant. And a dialler.

    python tests/kit/capture.py serve app:8080 in:17006 out:17001 …    prints `ready`; all addresses, both IP versions
    python tests/kit/capture.py dial ADDRESS PORT [udp]                prints what came first, or why nothing did

Each connection is greeted with a line, `app 8080` or `in 10.77.0.11 8080` (its SO_ORIGINAL_DST), and then echoed. A
port answers one datagram too.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST
ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
SECONDS = 3.0


def original(connection: socket.socket) -> str:
    """The address and port that the connection was meant for."""
    if connection.family == socket.AF_INET:
        raw = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        port, address = struct.unpack_from("!2xH4s", raw)
    else:
        raw = connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
        port, address = struct.unpack_from("!2xH4x16s", raw)
    return f"{socket.inet_ntop(connection.family, address)} {port}"


def greeting(connection: socket.socket, role: str, port: int) -> str:
    """Who is here."""
    if role == "app":
        return f"app {port}"
    try:
        return f"{role} {original(connection)}"
    except OSError as error:
        return f"{role} {error.strerror}"


def serve_one(connection: socket.socket, role: str, port: int) -> None:
    """Greet, and echo."""
    try:
        connection.sendall(greeting(connection, role, port).encode() + b"\n")
        while data := connection.recv(4096):
            connection.sendall(data)
    except OSError:
        pass
    finally:
        connection.close()


def serve(role: str, port: int, family: socket.AddressFamily) -> None:
    """Serve one port, forever, in threads."""
    listener = socket.create_server((ANY[family], port), family=family, backlog=512)
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    datagrams.bind((ANY[family], port))

    def connections() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_one, args=(connection, role, port), daemon=True).start()

    def packets() -> None:
        while True:
            _, sender = datagrams.recvfrom(2048)
            datagrams.sendto(f"udp {port}".encode(), sender)

    for each in (connections, packets):
        threading.Thread(target=each, daemon=True).start()


def dial(address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM, seconds: float = SECONDS) -> str:
    """The first line of whoever is there, or `refused`, `reset`, `closed`, `silent`, `unreachable`."""
    family, _, _, _, place = socket.getaddrinfo(address, port, type=kind)[0]
    with socket.socket(family, kind) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(place)
            if kind == socket.SOCK_DGRAM:
                connection.send(b"hello")
            return connection.recv(2048).decode().strip() or "closed"
        except ConnectionRefusedError:
            return "refused"
        except ConnectionResetError:
            return "reset"
        except TimeoutError:
            return "silent"
        except OSError:
            return "unreachable"


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        for word in sys.argv[2:]:
            name, _, number = word.partition(":")
            for version in ANY:
                serve(name, int(number), version)
        print("ready", flush=True)
        threading.Event().wait()
    else:
        datagram = sys.argv[4:] == ["udp"]
        print(dial(sys.argv[2], int(sys.argv[3]), socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM))
