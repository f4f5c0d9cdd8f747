"""Whom a sidecar asks on behalf of its hops: OPA, token endpoints. Tasks of trio's, begun where they are asked for.

What a configuration asks for again after a reload, word by word, goes on as it is: answers that are kept, tokens and
connections. What none asks for any more ends. Nothing of it is imported before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from sidecar.answer.bridge import Asker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sidecar.answer.bridge import Around
    from sidecar.answer.credentials import Credentials
    from sidecar.answer.opa import OpaAnswers
    from sidecar.config.schema import Service
    from sidecar.config.schema_egress import ClientToken
    from sidecar.config.schema_opa import Opa


LEFT_SECONDS: Final = 10.0  # that what nobody asks for any more still answers those who have asked


class _Errand:
    """Somebody who is asked, and the task that asks."""

    __slots__ = ("begun", "run", "scope", "who")

    def __init__(self, who: Any, run: Callable[[], Awaitable[None]]) -> None:
        self.who = who
        self.run = run
        self.scope = trio.CancelScope()
        self.begun = False


class Outside(Asker):
    """All of them, of one sidecar."""

    def __init__(self, around: Around) -> None:
        super().__init__(around)
        self._around = around
        self._errands: dict[object, _Errand] = {}  # by what the configuration says of them
        self._nursery: trio.Nursery | None = None

    def opa(self, spec: Opa) -> OpaAnswers:
        """Whoever asks this OPA."""
        from sidecar.answer.opa import OpaAnswers

        answers: OpaAnswers = self._errand(
            spec, lambda: OpaAnswers(spec, self._around)
        )
        return answers

    def credentials(self, name: str, spec: ClientToken) -> Credentials:
        """Whoever gets this token, for the upstream of this name."""
        from sidecar.answer.credentials import Credentials

        found: Credentials = self._errand((name, spec), lambda: Credentials(name, spec, self._around))
        return found

    def _errand(self, key: object, make: Callable[[], Any]) -> Any:
        found = self._errands.get(key)
        if found is None:
            who = make()
            found = self._errands[key] = _Errand(who, who.run)
        return found.who

    def in_force(self, service: Service) -> None:
        """This is the configuration in force: what it asks for is begun, and whatever else there is ends."""
        wanted: set[object] = {(each.name, each.token) for each in service.outbound if each.token is not None}
        if service.opa is not None:
            wanted.add(service.opa)
        for key in [key for key in self._errands if key not in wanted]:
            left = self._errands.pop(key)
            if left.begun:  # hops of the configuration before may still wait for it
                left.scope.deadline = trio.current_time() + LEFT_SECONDS
        self._begin(self._errands.values())

    def _begin(self, errands: Iterable[_Errand]) -> None:
        for each in errands:
            if self._nursery is not None and not each.begun:
                each.begun = True
                self._nursery.start_soon(self._run, each)

    async def _run(self, errand: _Errand) -> None:
        with errand.scope:
            while True:
                try:
                    await errand.run()
                except Exception as fault:  # noqa: BLE001 - a fault of ours there refuses hops, and ends no sidecar
                    if self._log is not None:
                        self._log.fault("asking outside failed inside the sidecar", fault)
                await trio.sleep(1.0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let them work, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._begin(self._errands.values())
            task_status.started()
            await trio.sleep_forever()
