"""The audit: who was let in, by what rule, and who was not, as versioned lines that tools learn from.

docs/telemetry.md lists the lines and their keys. Each handshake and each refusal is a line, but those by a rate limit:
they say nothing about rights, and who causes them could fill the disk, so they are counted as permits are, by caller
and limit. Permits are counted by
caller, listener, host, method, path *shape* (shape.py), rule and shadow verdicts; each minute and at the end a line per
kind tells how many there were and when exactly the first and the last one ended. With `permits: each` every permit is a
line.

The record must not lose silently. Lines wait in memory for the disk, 8 MiB of them. While a disk is full, permits
simply stay in their counts, which need no more room however many come; only lines are lost, and how many, and when,
is written as soon as there is room again (`kind: lost`). Every line has a number, lost ones too, so a gap shows by
itself. With `on_full: refuse` the sidecar asks `accepting()` before it lets a hop in; that turns false at three
quarters of the 8 MiB, which leaves the rest for hops that are on their way.

The kinds of permits are bounded: a caller that invents hosts or paths without end fills its own 256 places and is from
then on counted under `other`, and nobody else is pushed out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sidecar.config.schema_audit import Audit as AuditConfig
from sidecar.hop import Hop, ShadowVerdict, Token, Waived
from sidecar.telemetry import redact
from sidecar.telemetry.chain import Chain
from sidecar.telemetry.clock import rfc3339
from sidecar.telemetry.decisions import reason_of
from sidecar.telemetry.lines import encode, json_line
from sidecar.telemetry.series import OTHER
from sidecar.telemetry.shape import path_shape
from sidecar.telemetry.writer import LineWriter, Problem

if TYPE_CHECKING:
    from sidecar.errors import RateLimited
    from sidecar.telemetry.record import Handshake

VERSION = 1
CAPACITY = 8 * 1024 * 1024  # decision D9
FLUSH_SECONDS = 60.0
MAX_WELCOMES = 1024
MAX_KINDS = 4096
MAX_KINDS_OF_CALLER = 256
_ACCEPT_BELOW = 0.75  # share of the capacity
_MAX_TARGET = 512  # characters; longer targets are not worth a place in the short cut

ShortCut = tuple[str, str | None, str, str, str, tuple[str, ...], str, tuple[ShadowVerdict, ...], Waived | None]
KindKey = tuple[str, str, str, str, str, str, str, tuple[ShadowVerdict, ...], Waived | None]

LimitedKey = tuple[str, str, str]  # listener, caller, limit


class Permits:
    """How often one kind of hop was permitted, and when first and last."""

    __slots__ = ("count", "destination", "first", "key", "last")

    def __init__(self, key: KindKey, destination: str, now: float) -> None:
        self.key = key
        self.destination = destination
        self.count = 0
        self.first = now
        self.last = now


class Limited:
    """How often one limit refused one caller, and when first and last."""

    __slots__ = ("count", "destination", "first", "last")

    def __init__(self, destination: str, now: float) -> None:
        self.destination = destination
        self.count = 0
        self.first = now
        self.last = now


class Audit:
    """Makes the lines, counts the permits, and knows what was lost."""

    def __init__(
        self,
        config: AuditConfig,
        path: str,
        *,
        instance: str,
        service: str,
        capacity: int = CAPACITY,
        alarm: Problem | None = None,
        wall: Callable[[], float] = time.time,
        retry_seconds: float = 1.0,
    ) -> None:
        self.lost = 0  # lines lost since the start, exactly
        self.use(config)
        self._head = {"v": VERSION, "service": service, "instance": instance}
        self._head_text = encode(self._head)[:-1] + ","
        self._welcomes: dict[tuple[object, ...], str] = {}
        self._alarm = alarm or _silent
        self._wall = wall
        self.chain = Chain(path)
        self._writer = LineWriter(
            path, capacity=capacity, name="audit", on_problem=self._alarm, retry_seconds=retry_seconds, seal=self.chain
        )
        self._seq = 0
        self._losing = 0  # lines lost since the last `lost` line
        self._losing_since = 0.0
        self._losing_until = 0.0
        self._kinds: dict[KindKey, Permits] = {}
        self._of_caller: dict[str, int] = {}
        self._short_cut: dict[ShortCut, Permits] = {}
        self._limited: dict[LimitedKey, Limited] = {}
        self._flushed_at = wall()
        self._put("start", self._flushed_at, {})

    def use(self, config: AuditConfig) -> None:
        """From now on keep it as this says; its path stays."""
        self._each = config.permits == "each"
        self._refuse = config.on_full == "refuse"

    # ---- what the proxy asks -------------------------------------------------------------------------------------

    def accepting(self) -> bool:
        """Whether a hop may be let in; false only with `on_full: refuse` while the record is nearly full."""
        return not self._refuse or self._writer.waiting_bytes < self._writer.capacity * _ACCEPT_BELOW

    @property
    def waiting_bytes(self) -> int:
        """Bytes of lines that wait for the disk."""
        return self._writer.waiting_bytes

    @property
    def problem(self) -> str:
        """Why the record cannot be written at the moment; empty while it can."""
        return self._writer.problem

    # ---- what happened -------------------------------------------------------------------------------------------

    def permit(self, hop: Hop, now: float) -> None:
        """Take note of a hop that was let in and ended at `now` (seconds since the epoch)."""
        if self._each:
            self._put("permit", now, self._permit_values(hop, now))
            return
        permits = self._permits(hop, now)
        permits.count += 1
        permits.last = now

    def kind_of(self, hop: Hop, now: float) -> Permits | None:
        """Where hops like this one are counted, until the next flush; None where each has a line of its own."""
        return None if self._each else self._find(hop, now)

    def _permits(self, hop: Hop, now: float) -> Permits:
        peer = hop.peer
        caller = None if peer is None else peer.text
        key: ShortCut = (
            hop.direction, caller, hop.listener, hop.host, hop.method, hop.segments, hop.rule, hop.shadow, hop.waived,
        )  # fmt: skip
        permits = self._short_cut.get(key)
        if permits is None:
            permits = self._find(hop, now)
            if len(hop.target) <= _MAX_TARGET and len(hop.host) <= _MAX_TARGET:
                if len(self._short_cut) >= MAX_KINDS:
                    self._short_cut.clear()
                self._short_cut[key] = permits
        return permits

    def refusal(self, hop: Hop, now: float) -> None:
        """Take note of a hop that was refused."""
        error = hop.error
        self._put(
            "refusal",
            now,
            {
                **self._who(hop),
                "method": redact.text(hop.method, 32),
                "host": redact.text(hop.host, 256),
                "path": redact.target(hop.target),
                "path_shape": path_shape(hop.segments) if hop.segments else "",
                **({"operation": redact.text(hop.operation, 128)} if hop.operation else {}),
                "rule": hop.rule,
                "flag": hop.flag,
                "error": error.name if error is not None else "",
                "reason": reason_of(error),
                "status": hop.status,
                "shadow": _shadow(hop.shadow),
                **_waived(hop.waived),
                "decision_id": hop.decision_id,
            },
        )

    def limited(self, hop: Hop, error: RateLimited, now: float) -> None:
        """Take note of a hop that a rate limit has refused."""
        if self._each:
            self.refusal(hop, now)
            return
        destination = hop.destination.text if hop.destination is not None else ""
        caller = hop.peer.text if hop.peer is not None else ""
        self._count_limited((hop.listener, caller, error.limit), destination, now)

    def turned_away(self, listener: str, why: str, now: float) -> None:
        """Take note of a connection that was not even taken, for this limit of the sidecar's (`connections`, say)."""
        self._count_limited((listener, "", why), "", now)

    def _count_limited(self, key: LimitedKey, destination: str, now: float) -> None:
        found = self._limited.get(key)
        if found is None:
            if len(self._limited) >= MAX_KINDS:
                key = (key[0], OTHER, key[2])
            found = self._limited.setdefault(key, Limited(destination, now))
        found.count += 1
        found.last = now

    def event(self, kind: str, values: dict[str, Any]) -> None:
        """Take note of what was done to this sidecar, or became of its certificate (`kind`: see docs/audit.md)."""
        self._put(kind, self._wall(), values)

    def token(self, hop: Hop, token: Token) -> None:
        """Take note of a bearer token that was found good. Whoever shows it again is no news."""
        self._put("token", self._wall(), {
            "direction": hop.direction, "listener": hop.listener,
            "caller": hop.peer.text if hop.peer is not None else "",
            "source": str(hop.source) if hop.source is not None else "",
            "token": {"issuer": token.issuer, "id": token.id}, "expires": rfc3339(token.expires),
        })  # fmt: skip

    def quota_reset(self, quota: str, key: str, uid: int, pid: int) -> None:
        """Take note that somebody on this machine gave a key its quota anew."""
        self._put("quota_reset", self._wall(), {"quota": quota, "key": key, "uid": uid, "pid": pid})

    def detection(self, values: dict[str, Any]) -> None:
        """Take note of what a detector found conspicuous."""
        self._put("detection", self._wall(), values)

    def detection_lifted(self, caller: str, user: str, uid: int, pid: int) -> None:
        """Take note that somebody on this machine let a caller go that a detector held."""
        self._put("detection_lifted", self._wall(), {"caller": caller, "user": user, "uid": uid, "pid": pid})

    def handshake(self, it: Handshake, decision_id: str, now: float) -> None:
        """Take note of a handshake that ended."""
        if not it.ok:
            self._put("handshake", now, _handshake(it, decision_id))
            return
        who = (it.direction, it.listener, it.peer, it.expected, it.source, it.tls)
        rest = self._welcomes.get(who)  # all but number and time: who comes once comes often
        if rest is None:
            if len(self._welcomes) >= MAX_WELCOMES:
                self._welcomes.clear()
            rest = self._welcomes[who] = encode(_handshake(it, ""))[1:]
        self._put("handshake", now, rest)

    # ---- writing -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Flush where a minute has passed; called every few seconds."""
        if self._losing:
            self._tell_loss(now)
        if now - self._flushed_at >= FLUSH_SECONDS or now < self._flushed_at:
            self.flush(now)

    def flush(self, now: float) -> int:
        """Write the counts of permits as lines; returns how many kinds had to stay because there was no room."""
        self._flushed_at = now
        if self._losing and not self._tell_loss(now):
            return len(self._kinds) + len(self._limited)
        self._short_cut.clear()
        for line, permits in self._permit_lines(now):
            if not self._writer.has_room(len(line)):
                self._alarm("no room for the counts of permits; they are kept in memory")
                break
            self._writer.put(line)
            self._seq += 1
            self._forget(permits)
        for key, line in self._limited_lines(now):
            if not self._writer.has_room(len(line)):
                break
            self._writer.put(line)
            self._seq += 1
            del self._limited[key]
        return len(self._kinds) + len(self._limited)

    def close(self, now: float, timeout: float = 2.0) -> int:
        """Flush, end the record, stop writing; returns how many lines (or kinds of permits) were not kept."""
        kinds = self.flush(now)
        self._put("stop", now, {})
        return kinds + self._writer.close(timeout) + self._losing

    def _put(self, kind: str, now: float, values: dict[str, Any] | str) -> None:
        told = not self._losing or self._tell_loss(now)
        if told and self._writer.put(self._line(kind, now, self._seq + 1, values)):
            self._seq += 1
        else:
            self._lose(now)

    def _line(self, kind: str, now: float, seq: int, values: dict[str, Any] | str) -> bytes:
        """One line; of the values that make its end, the keys and values, or their JSON without the first brace."""
        if not isinstance(values, str):
            return json_line({**self._head, "seq": seq, "kind": kind, "time": rfc3339(now), **values})
        return f'{self._head_text}"seq":{seq},"kind":"{kind}","time":"{rfc3339(now)}",{values}\n'.encode("ascii")

    def _lose(self, now: float) -> None:
        self._seq += 1
        self.lost += 1
        if not self._losing:
            self._losing_since = now
            self._alarm("audit lines are being lost: the record cannot be written and 8 MiB are waiting")
        self._losing += 1
        self._losing_until = now

    def _tell_loss(self, now: float) -> bool:
        """Write how many lines were lost, once a quarter of the room is free again. False while it is not."""
        if self._writer.waiting_bytes >= self._writer.capacity * _ACCEPT_BELOW:
            return False
        first, last = rfc3339(self._losing_since), rfc3339(self._losing_until)
        values = {"count": self._losing, "first": first, "last": last}
        if not self._writer.put(self._line("lost", now, self._seq + 1, values)):
            return False
        self._seq += 1
        self._losing = 0
        return True

    # ---- permits -------------------------------------------------------------------------------------------------

    def _find(self, hop: Hop, now: float) -> Permits:
        caller = hop.peer.text if hop.peer is not None else ""
        shape = path_shape(hop.segments) if hop.protocol == "http" else ""
        host, method = redact.text(hop.host, 256), redact.text(hop.method, 32)
        key: KindKey = (hop.direction, caller, hop.listener, host, method, shape, hop.rule, hop.shadow, hop.waived)
        found = self._kinds.get(key)
        if found is not None:
            return found
        taken = self._of_caller.get(caller, 0)
        if taken >= MAX_KINDS_OF_CALLER or len(self._kinds) >= MAX_KINDS:
            if len(self._kinds) >= 2 * MAX_KINDS:
                caller = OTHER
            key = (hop.direction, caller, hop.listener, OTHER, OTHER, OTHER, hop.rule, (), hop.waived)
            found = self._kinds.get(key)
        if found is None:
            destination = hop.destination.text if hop.destination is not None else ""
            found = self._kinds[key] = Permits(key, destination, now)
            self._of_caller[caller] = self._of_caller.get(caller, 0) + 1
        return found

    def _permit_lines(self, now: float) -> Iterator[tuple[bytes, Permits]]:
        for permits in list(self._kinds.values()):
            direction, caller, listener, host, method, shape, rule, shadow, waived = permits.key
            values = {
                "direction": direction,
                "listener": listener,
                "caller": caller,
                "destination": permits.destination,
                "method": method,
                "host": host,
                "path_shape": shape,
                "rule": rule,
                "shadow": _shadow(shadow),
                **_waived(waived),
                "count": permits.count,
                "first": rfc3339(permits.first),
                "last": rfc3339(permits.last),
            }
            yield self._line("permit", now, self._seq + 1, values), permits

    def _limited_lines(self, now: float) -> Iterator[tuple[LimitedKey, bytes]]:
        for key, limited in list(self._limited.items()):
            values = {
                "listener": key[0], "caller": key[1], "destination": limited.destination, "limit": key[2],
                "count": limited.count, "first": rfc3339(limited.first), "last": rfc3339(limited.last),
            }  # fmt: skip
            yield key, self._line("limited", now, self._seq + 1, values)

    def _permit_values(self, hop: Hop, now: float) -> dict[str, Any]:
        moment = rfc3339(now)
        return {
            **self._who(hop),
            "method": redact.text(hop.method, 32),
            "host": redact.text(hop.host, 256),
            "path": redact.target(hop.target),
            "path_shape": path_shape(hop.segments) if hop.protocol == "http" else "",
            "rule": hop.rule,
            "status": hop.status,
            "shadow": _shadow(hop.shadow),
            **_waived(hop.waived),
            "decision_id": hop.decision_id,
            "count": 1,
            "first": moment,
            "last": moment,
        }

    def _forget(self, permits: Permits) -> None:
        del self._kinds[permits.key]
        caller = permits.key[1]
        left = self._of_caller[caller] - 1
        if left:
            self._of_caller[caller] = left
        else:
            del self._of_caller[caller]

    def _who(self, hop: Hop) -> dict[str, Any]:
        return {
            "direction": hop.direction,
            "listener": hop.listener,
            "protocol": hop.protocol,
            "caller": hop.peer.text if hop.peer is not None else "",
            "destination": hop.destination.text if hop.destination is not None else "",
            "source": str(hop.source) if hop.source is not None else "",
            **({"token": {"issuer": hop.token.issuer, "id": hop.token.id}} if hop.token is not None else {}),
        }


def _handshake(it: Handshake, decision_id: str) -> dict[str, Any]:
    tls = it.tls
    return {
        "direction": it.direction,
        "listener": it.listener,
        "ok": it.ok,
        "peer": it.peer.text if it.peer is not None else "",
        "expected": it.expected.text if it.expected is not None else "",
        "source": str(it.source) if it.source is not None else "",
        "reason": redact.text(it.reason, 64),
        "detail": redact.text(it.detail),
        "tls_version": tls.version if tls is not None else "",
        "tls_group": tls.group if tls is not None else "",
        "serial": tls.serial if tls is not None else "",
        "not_after": rfc3339(tls.not_after) if tls is not None else "",
        "decision_id": decision_id,
    }


def _shadow(verdicts: tuple[ShadowVerdict, ...]) -> dict[str, str]:
    return {each.rule: each.effect for each in verdicts}


def _waived(it: Waived | None) -> dict[str, dict[str, str]]:
    """What a strict listener would have refused; nothing where it would not have."""
    if it is None:
        return {}
    return {"would_refuse": {"posture": it.posture, "error": it.error, "flag": it.flag, "rule": it.rule}}


def _silent(problem: str) -> None:
    """Nobody listens."""
