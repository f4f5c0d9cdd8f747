"""One look of the sidecar's bypass check, as this user, in the network namespace that we are in; prints what it found.

    python -m tests.kit.bypass_look UID PORT [allow]
"""

from __future__ import annotations

import json
import os
import sys

import trio

from sidecar.config.load import load_text
from sidecar.config.schema import Service
from sidecar.net.clock import SystemClock
from sidecar.runtime.bypass import BypassCheck
from sidecar.runtime.mirror import Mirror
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics

CONFIG = """
trust_domain: demo.mesh
services:
  shop: {{inbound: [{{app: '127.0.0.1:{port}'}}], allow: [{{from: '*'}}], unsafe_allow_bypass: {allow}}}
"""


async def main(service: Service) -> None:
    """Look."""
    check = BypassCheck(lambda: service, Mirror(), Log(), Metrics(), SystemClock())
    await check.look()
    print(json.dumps(check.latest.to_json()))


if __name__ == "__main__":
    uid, number, *rest = sys.argv[1:]
    allowed = str(rest == ["allow"]).lower()
    shop = load_text(CONFIG.format(port=number, allow=allowed)).services["shop"]  # while we may read any Python's files
    os.setgroups([])
    os.setresuid(*(int(uid),) * 3)
    trio.run(main, shop)
