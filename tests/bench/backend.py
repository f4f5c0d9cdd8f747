"""The back end: one nginx worker. 1 KiB from memory, a chunked answer, a large file by sendfile."""

from __future__ import annotations

from pathlib import Path

from tests.bench.peers.nginx import configuration
from tests.bench.rows import ROWS

LINE = 16  # bytes: each says at what offset it stands
ID = 36  # bytes: every other answer begins with its request's id, so that a crossed one is seen


def backend(folder: Path, port: int, *, grpc: bool = False) -> list[str]:
    """Its command line; `grpc`: it speaks HTTP/2, and answers each call with one message and its status."""
    length = max(row.work.length for row in ROWS if row.work.check == "lines")
    with (folder / "bulk").open("wb") as bulk:
        for start in range(0, length, LINE << 16):
            bulk.write(b"".join(b"%015x\n" % at for at in range(start, min(start + (LINE << 16), length), LINE)))
    (folder / "reply").write_bytes(b"\0\0\0\0\x3b" + b"r" * 59)
    small, large = "x" * (1024 - ID), "y" * 1022  # 16 KiB - 36 = 16 × 1022 - 4
    return configuration(
        folder,
        "backend",
        f"""
        server {{
            listen 127.0.0.1:{port} backlog=4096{" http2" if grpc else ""};
            default_type text/plain; client_max_body_size 0; sendfile on;
            location /items/ {{ return 200 "${{http_x_request_id}}{small}"; }}
            location /chunked/ {{
                ssi on; ssi_types text/plain; # which takes the length away
                set $block "{large}"; return 200 "${{http_x_request_id}}{"${block}" * 15}{large[4:]}";
            }}
            location /echo.Echo/ {{
                alias {folder}/; try_files reply =500; default_type application/grpc; add_trailer grpc-status 0 always;
                error_page 405 =200 $uri; # a file is no answer to POST, but here it is
            }}
            location /bulk/ {{ alias {folder}/; try_files bulk =500; }}
        }}""",
    )
