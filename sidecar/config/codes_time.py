"""The codes about time-outs and retries that contradict each other (`sidecar.config.times`)."""

from __future__ import annotations

import textwrap
from typing import Final

_ORDERS: Final = "  orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]}\n"


def _web(wrong: str, right: str) -> tuple[str, str]:
    """Two configs that differ in what `web` says of its one upstream."""
    made = [
        f"services:\n{_ORDERS}  web:\n    outbound:\n      - to: orders\n        listen: 127.0.0.1:9001\n"
        + textwrap.indent(textwrap.dedent(block), "        ").rstrip() + "\n"
        for block in (wrong, right)
    ]  # fmt: skip
    return made[0], made[1]


# code, title, why, what to do, wrong, right
TIMES: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH100", "a time-out that another one always beats",
        "Several clocks run for one request, and the earliest wins. This one is never the earliest, so whoever "
        "wrote it relies on something that does not happen: a slow try, say, is not followed by another.",
        "Make it shorter than the other one, or remove it.",
        *_web("timeouts: {total: 5s, per_try: 5s}", "timeouts: {total: 5s, per_try: 2s}"),
    ),
    (
        "MESH101", "a time for each try where there is only one",
        "A try is cut short only where another may follow it. Where nothing is sent again, the first try is the "
        "last.",
        "Allow `retries.resends`, or limit the whole request: `timeouts.total`.",
        *_web(
            "timeouts: {per_try: 1s}\nretries: {resends: 0}", "timeouts: {per_try: 1s}\nretries: {resends: 1}"
        ),
    ),
    (
        "MESH102", "retries that never come",
        "What a request would be sent again for is listed, and then nothing may be sent again, or there is no time "
        "to.",
        "Raise `resends`, give the request more time, or remove what never acts.",
        *_web("retries: {resends: 0, statuses: [503]}", "retries: {resends: 1, statuses: [503]}"),
    ),
    (
        "MESH103", "a ceiling on retries that nothing reaches",
        "There can never be so many retries under way, so this bounds nothing.",
        "Set it well below `limits.requests`, or remove it.",
        _web("", "")[0] + "    limits: {requests: 100, retries: 200}\n",
        _web("", "")[0] + "    limits: {requests: 100, retries: 20}\n",
    ),
)  # fmt: skip
