"""What an operator can say of the Redis by which the sidecars of a service count together."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sidecar.config.redis_url import RedisAddress
from sidecar.config.terms import FilePath, Label, Seconds, described

RedisUrl = Annotated[RedisAddress, "redis"]


@dataclass(frozen=True, slots=True)
class Redis:
    """A Redis that limits with `shared: redis` are kept in; see docs/rate-limits.md. A service has one."""

    url: RedisUrl = described(
        "Where: `redis://HOST:6379/0`, `rediss://HOST:6379` by TLS (its certificate must be for HOST), or "
        "`unix:/run/redis/redis.sock`."
    )
    username: Label = described("The user of its access list; empty for the default one.", "")
    password_file: FilePath = described("A file with the password; nobody else may read it. Empty for none.", "")
    ca_file: FilePath = described(
        "For `rediss://`: roots, in PEM, that its certificate is verified by; empty for the system's.", ""
    )
    prefix: Label = described("What all our keys begin with; meshes with another prefix count apart.", "mesh")
    within: Seconds = described(
        "How long a request waits for it at most. What takes longer counts as away, and then nobody waits until it "
        "answers again.",
        0.05,
    )
    when_away: Literal["local", "refuse"] = described(
        "What a limit does while it is away: `local` holds each sidecar to the same limit by itself, `refuse` answers "
        "503 (flag RLSE). It is never without limit.",
        "local",
    )
