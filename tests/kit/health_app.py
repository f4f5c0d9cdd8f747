"""An application that says whether it is well: `python -m tests.kit.health_app PORT NAME FOLDER`.

`/healthz` is answered by 500 while a file NAME.ill is in the folder; everything else with its name.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main() -> None:
    """Serve for ever."""
    port, name, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            ill = self.path == "/healthz" and (folder / f"{name}.ill").exists()
            self.send_response(500 if ill else 200)
            self.send_header("Content-Length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
