"""What stands behind the codes about how limits count; the others are in `codes`, where both come together."""

from __future__ import annotations

import textwrap
from typing import Final

from sidecar.config.codes_examples import HTTP, services


def _rates(wrong: str, right: str) -> tuple[str, str]:
    """Two configs that differ in their limits."""
    return services(HTTP + textwrap.dedent(wrong), HTTP + textwrap.dedent(right))


# code, title, why, what to do, wrong, right
LIMITS: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH085", "a setting of a wait that nobody has",
        "`delay`, `waiting`, `strikes` and `block` are about requests that wait for their turn. With `over: refuse`, "
        "which is the default, none does.",
        "Write `over: delay` beside it, or remove it.",
        *_rates("    rates: [{limit: 10/s, delay: 2s}]", "    rates: [{limit: 10/s, over: delay, delay: 2s}]"),
    ),
    (
        "MESH086", "a wait that is too short for a single turn",
        "Turns come evenly, one each `1/limit`. Where `delay` is shorter than that, nobody over the limit ever waits; "
        "all are refused at once.",
        "Give at least as much time as one turn takes.",
        *_rates(
            "    rates: [{limit: 6/m, over: delay, delay: 5s}]", "    rates: [{limit: 6/m, over: delay, delay: 20s}]"
        ),
    ),
    (
        "MESH087", "a password that travels in the clear",
        "Without TLS whoever sits between this machine and that Redis reads the password, and then can reset every "
        "limit.",
        "Write `rediss://`, with `ca_file` where its certificate is of a CA of your own.",
        *_rates(
            "    redis: {url: 'redis://10.0.0.9:6379', password_file: /etc/mesh/redis}\n"
            "    rates: [{limit: 10/s, shared: redis}]",
            "    redis: {url: 'rediss://10.0.0.9:6379', password_file: /etc/mesh/redis}\n"
            "    rates: [{limit: 10/s, shared: redis}]",
        ),
    ),
    (
        "MESH088", "roots for a connection without TLS",
        "`ca_file` says by which roots the certificate of the Redis is verified. Without TLS there is none.",
        "Write `rediss://` in `url`, or remove `ca_file`.",
        *_rates(
            "    redis: {url: 'redis://127.0.0.1:6379', ca_file: /etc/mesh/redis-ca.pem}\n"
            "    rates: [{limit: 10/s, shared: redis}]",
            "    redis: {url: 'rediss://127.0.0.1:6379', ca_file: /etc/mesh/redis-ca.pem}\n"
            "    rates: [{limit: 10/s, shared: redis}]",
        ),
    ),
)
