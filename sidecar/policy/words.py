"""What every sentence about a failure is made of: the pair of what happened and what to do, and its placeholders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.config.quantities import show_seconds, show_size

if TYPE_CHECKING:
    from sidecar.config.schema import Service


class Reason(NamedTuple):
    """What happened and what to do, each one or two sentences."""

    happened: str
    todo: str

    def to_json(self) -> dict[str, str]:
        """The reason as data."""
        return {"happened": self.happened, "todo": self.todo}


_SECONDS: Final = (
    "connect", "handshake", "request_head", "response_head", "total", "per_try", "idle", "slow", "tcp_idle",
    "pool_idle_app", "pool_idle_peer",
)  # fmt: skip
_SIZES: Final = ("head_bytes", "body_rate")
_NUMBERS: Final = ("head_lines", "connections", "streams", "pool", "retries")
LIMITS: Final = {  # what stands for a limit whose value is not known
    **{name: f"`timeouts.{name}`" for name in _SECONDS},
    **{name: f"`limits.{name}`" for name in (*_SIZES, *_NUMBERS, "pending")},
}


def limits_of(service: Service) -> dict[str, str]:
    """The limits of a service as facts for these sentences: `services.orders.timeouts.idle` (now 5m)."""
    timeouts, limits = service.timeouts, service.limits
    shown = {f"timeouts.{name}": _seconds(getattr(timeouts, name)) for name in _SECONDS}
    shown |= {f"limits.{name}": _size(getattr(limits, name)) for name in _SIZES}
    shown |= {f"limits.{name}": str(getattr(limits, name)) for name in _NUMBERS}
    shown["limits.pending"] = show_seconds(limits.pending)
    return {
        key.partition(".")[2]: f"`services.{service.name}.{key}` (now {value})" for key, value in shown.items()
    }


def _seconds(value: float | None) -> str:
    return "off" if value is None else show_seconds(value)


def _size(value: int | None) -> str:
    return "off" if value is None else show_size(value)
