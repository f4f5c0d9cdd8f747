"""A token for one upstream, by client credentials (RFC 6749 section 4.4): got, kept, and replaced before it ends.

Theory of operation. One trio task asks the token endpoint, one request at a time: at once when a configuration wants a
token, after about three quarters of its life, when the upstream has refused it (no more than once in ten seconds), and
after a failure again and again, 1 s later, then twice that, up to a minute, each with a jitter. The last token is used
to its end meanwhile. The secret is read anew for each request, so that it can be replaced without a restart; it is in
memory for that long.

Connections take the token that is there. Where there is none yet they wait for the request under way; where that has
just failed, nobody waits.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from certs.errors import MeshError
from certs.store import read_key
from sidecar.answer.bridge import Asker
from sidecar.net.port import NEVER, Expired, Signal
from sidecar.net.web import WebClient, WebFailed
from sidecar.policy.grant import MOST_ANSWER_BYTES, Grant, NoGrant, read_answer, request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.answer.bridge import Around
    from sidecar.config.schema_egress import ClientToken, Secret
    from sidecar.net.port import Port

WITHIN: Final = 10.0  # seconds for one request, and for a program that prints a secret
PATIENCE: Final = 5.0  # seconds that a request of the application waits for the first token
FIRST_PAUSE, LONGEST_PAUSE, JITTER = 1.0, 60.0, 0.25  # seconds after a failure, and a share of them
FORCED: Final = 10.0  # seconds at least from one token to another that is asked for because the upstream refused it
MOST_SECRET_BYTES: Final = 16 * 1024


class NoSecret(MeshError):
    """The client's secret cannot be read. The text never has it."""

    name = "no_secret"


class Credentials(Asker):
    """The token of one upstream."""

    def __init__(self, name: str, spec: ClientToken, around: Around) -> None:
        super().__init__(around)
        self.spec = spec
        self.problem = "it has not been asked for yet"  # why there is no newer token, in words
        self._name = name
        self._token = b""
        self._until = 0.0  # monotonic: it is used until then
        self._got = -FORCED  # monotonic: when
        self._failing = False
        self._settled = Signal()  # of the request that is under way, or comes next
        self._wanted = trio.Event()  # by somebody whose token was refused

    # ---- a connection's side ---------------------------------------------------------------------------------------

    def ready(self) -> bytes | None:
        """The token of now; None where there is none."""
        return self._token if self._token and self._clock.monotonic() < self._until else None

    async def wait(self, port: Port) -> bytes | None:
        """The token, once there is one; None where there will be none soon, and `problem` says why."""
        if self.ready() is None and not self._failing:
            self._wanted.set()
            await self._settle(port)
        return self.ready()

    async def renewed(self, port: Port, token: bytes) -> bytes | None:
        """Another token in the place of one that the upstream has refused; None where there is none."""
        if token == self._token:
            if self._clock.monotonic() < self._got + FORCED or self._failing:
                return None
            self._wanted.set()
            await self._settle(port)
        found = self.ready()
        return found if found != token else None

    async def _settle(self, port: Port) -> None:
        self._bridge.awaits(1)
        port.deadline(port.now + PATIENCE)
        try:
            await port.wait(self._settled)
        except Expired:
            pass
        finally:
            self._bridge.awaits(-1)
            port.deadline(NEVER)

    # ---- trio's side -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a token, until cancelled."""
        pause = FIRST_PAUSE / 2.0
        while True:
            self._wanted = trio.Event()
            grant = await self._get()
            self._settle_all()
            if grant is None:
                pause = min(2.0 * pause, LONGEST_PAUSE)
                await trio.sleep(pause * (1.0 + JITTER * (2.0 * self._dice() - 1.0)))
                continue
            pause = FIRST_PAUSE / 2.0
            with trio.move_on_after(grant.refresh_after(self._dice())):
                await self._wanted.wait()

    async def _get(self) -> Grant | None:
        began = self._clock.monotonic()
        grant: Grant | None = None
        problem = f"no answer within {WITHIN:g} s"
        with trio.move_on_after(WITHIN):
            try:
                grant = await self._ask()
            except (NoSecret, NoGrant, WebFailed) as error:
                problem = str(error)
        if grant is not None:
            self._token, self._until, self._got = grant.token, began + grant.usable, began
        self._tell("" if grant is not None else problem)
        return grant

    async def _ask(self) -> Grant:
        """One request. Raises NoSecret, NoGrant, WebFailed."""
        secret = await _read(self.spec.secret)
        body, headers = request(self.spec, secret)
        client = WebClient(self.spec.url, roots=self.spec.roots, most=MOST_ANSWER_BYTES)
        try:
            answer = await client.post(self.spec.url.path, body, headers)
        finally:
            with trio.CancelScope(shield=True):
                await client.drop()
        return read_answer(answer.status, answer.header(b"content-type"), answer.body)

    def _settle_all(self) -> None:
        settled, self._settled = self._settled, Signal()
        settled.fire()
        self._bridge.nudge()

    def _tell(self, problem: str) -> None:
        """In the metrics each time; in the log when it fails, with other words, or comes back."""
        failing = bool(problem)
        changed, self._failing = (failing, problem) != (self._failing, self.problem), failing
        self.problem = problem
        self._metrics.counter("mesh_egress_token_requests_total").add((self._name, "failed" if failing else "ok"))
        left = max(0.0, self._until - self._clock.monotonic())
        self._metrics.counter("mesh_egress_token_seconds").set(left, (self._name,))
        if not changed or self._log is None:
            return
        facts = {"upstream": self._name, "token_endpoint": str(self.spec.url)}
        if failing:
            stands = f"the last one for {left:.0f} s" if left else "none: requests are answered 503"
            self._log.warning("no new token", **facts, problem=problem, in_use=stands)
        else:
            self._log.info("a token was got", **facts, good_for=round(left))


async def _output(command: Sequence[str]) -> bytes:
    """What a program prints, as far as is needed to see that it is too much. Raises NoSecret, OSError."""
    process = await trio.lowlevel.open_process(
        list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    found = b""
    try:
        while len(found) <= MOST_SECRET_BYTES and (more := await process.stdout.receive_some(MOST_SECRET_BYTES + 1)):
            found += more
        if len(found) <= MOST_SECRET_BYTES and await process.wait():
            raise NoSecret(f"the program of its secret has failed ({process.returncode})")
        return found
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            await process.stdout.aclose()


async def _read(secret: Secret) -> str:
    """The secret, as text. Raises NoSecret, whose text never has any of it."""
    try:
        if secret.file:
            found = await trio.to_thread.run_sync(read_key, Path(secret.file))
        else:
            found = await _output(secret.command)
    except MeshError as error:
        raise NoSecret(str(error)) from None
    except OSError as error:
        raise NoSecret(f"its secret cannot be read: {error.strerror or type(error).__name__}") from None
    text = found[: MOST_SECRET_BYTES + 1].decode("utf-8", "replace").rstrip("\r\n")
    if not text or len(found) > MOST_SECRET_BYTES:
        raise NoSecret("its secret is empty, or too long")
    return text
