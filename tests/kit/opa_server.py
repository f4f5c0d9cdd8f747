"""OPA's REST API before a real Rego engine (`regopy`): POST /v1/data/PATH with `{"input": …}`.

As of OPA: `{"result": …}`, and `{}` for a document that is undefined for this input. With `broken` it answers what a
test wants instead.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from regopy import Interpreter

from tests.kit.web_server import Asked, Says, WebServer


class OpaServer(WebServer):
    """An OPA with one policy."""

    def __init__(self, policy: str, *, port: int = 0, **more: Any) -> None:
        super().__init__(self._answer, port=port, **more)
        self._turn = threading.Lock()  # the engine has one input at a time
        self.broken: Says | None = None
        self.load(policy)

    def load(self, policy: str) -> None:
        """Another policy, from the next question on."""
        engine = Interpreter()
        engine.add_module("mesh", policy)
        with self._turn:
            self._engine = engine

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """What it was asked."""
        return [json.loads(each.body)["input"] for each in self.asked]

    def _answer(self, asked: Asked) -> Says:
        if self.broken is not None:
            return self.broken
        if asked.method != "POST" or not asked.path.startswith("/v1/data/"):
            return Says(404, b'{"code": "not_found"}')
        with self._turn:
            self._engine.set_input(json.loads(asked.body)["input"])
            said = str(self._engine.query("said = data." + asked.path.removeprefix("/v1/data/").replace("/", ".")))
        if said == "undefined":
            return Says(body=b"{}")
        return Says(body=json.dumps({"result": json.loads(said)["bindings"]["said"]}).encode())
