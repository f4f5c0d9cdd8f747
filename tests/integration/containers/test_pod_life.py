"""The life of an injected pod, in the kubelet's published order: nothing before the mesh, nothing after it."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.admin import client
from sidecar.config import ports
from sidecar.deploy.names import CONTAINER, IMAGE
from tests.kit.fleet import MESH
from tests.kit.kube_pod import volume_folders
from tests.kit.kubelet import Kubelet, answers_well
from tests.kit.netns import Network
from tests.kit.nonce import NonceLoad, Tally
from tests.kit.pod_world import APP_PORT, CALL_PORT, ECHO, Authority, config, injected, pod
from tests.kit.processes import Process, eventually, listens

CA = "10.77.0.1"
AT_ONCE = 6  # requests that may be under way at one host; at 60 a second and a few milliseconds each it is one
PYTHON = "python"  # an image whose entrypoint is a Python
URL = f"http://127.0.0.1:{CALL_PORT}/hello"
GET = f"import sys, urllib.request as u\nprint(u.urlopen('{URL}', timeout=10).status, flush=True)\n"
# An application that says goodbye through the mesh when it is told to end.
GOODBYE = (
    "import signal, sys\n"
    f"def end(*_):\n    exec({GET!r})\n    sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\nprint('up', flush=True)\nwhile True: signal.pause()\n"
)
SERVE = (
    f"import runpy, sys\nsys.path.insert(0, {str(ECHO.parent)!r})\nsys.argv = ['', '{APP_PORT}']\n"
    f"runpy.run_path({str(ECHO.with_name('leaving_app.py'))!r}, run_name='__main__')\n"
)


class Town:
    """A CA and pods, each on a host of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = Network()
        self.authority = Authority(folder, f"{CA}:{ports.CA}", "web", "orders")
        self._ca_host = self.network.host(CA)
        self.ca: Process | None = None
        self.pods: list[Kubelet] = []

    def start_ca(self) -> None:
        """Start the CA, or start it again."""
        self.ca = self.authority.start(self._ca_host.command(self.authority.serve_command()))

    def pod(self, service: str, number: int, program: str, calls: str = "10.77.0.21", **more: Any) -> Kubelet:
        """A pod of a service, whose application is this Python program; not started yet."""
        address = f"10.77.0.{(20 if service == 'orders' else 10) + number}"
        written = pod(service, [sys.executable, "-c", program], PYTHON, **more)
        ready = injected(written)
        place = self.folder / f"{service}-{number}"
        text = config(calls, f"{CA}:{ports.CA}") + "    timeouts: {pool_idle_app: 1s}\n"  # or each leave takes longer
        folders = volume_folders(place / "volumes", ready, text, self.authority.enrolment(service), owner=None)
        for name in ("mesh-state", "mesh-run"):
            folders[name].chmod(0o755)  # our user is root here, so nobody else need write
        made = Kubelet(
            ready, self.network.host(address), place, images={IMAGE: MESH, PYTHON: [sys.executable]}, volumes=folders
        )
        self.pods.append(made)
        return made

    def close(self) -> None:
        for each in self.pods:
            each.delete()
        if self.ca is not None:
            self.ca.stop()
        self.network.__exit__()


def up(*pods: Kubelet) -> None:
    """Wait until these run, and until what orders serves can be called."""
    for each in pods:
        each.until("Running")
        if each.pod["metadata"]["name"] == "orders":
            eventually("orders listens", lambda host=each.host: host.within(listens, APP_PORT))


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_nothing_begins_before_the_sidecar_is_ready(town: Town) -> None:
    """Without a CA there is no identity, so the pod waits; init containers too, which may need the mesh."""
    town.start_ca()
    orders = town.pod("orders", 1, SERVE).start()
    up(orders)
    assert town.ca is not None
    town.ca.stop()
    migrate = {"name": "migrate", "image": PYTHON, "args": ["-c", GET]}
    web = town.pod("web", 1, GOODBYE, initContainers=[migrate]).start()
    time.sleep(3)
    assert (web.phase, web.order("created")) == ("Pending", [CONTAINER])
    town.start_ca()
    web.until("Running")
    assert [(event.what, event.container, event.code) for event in web.events] == [
        ("created", CONTAINER, None), ("started", CONTAINER, None), ("created", "migrate", None),
        ("ended", "migrate", 0), ("created", "app", None),
    ]  # fmt: skip
    assert web.processes["migrate"].text() == "200\n"


def test_the_sidecar_ends_after_the_application(town: Town) -> None:
    """Its last request still goes through the mesh."""
    town.start_ca()
    orders = town.pod("orders", 1, SERVE).start()
    web = town.pod("web", 1, GOODBYE).start()
    up(orders, web)
    eventually("the application is up", lambda: "up" in web.processes["app"].text())
    web.delete()
    assert web.processes["app"].text() == "up\n200\n"
    assert [(event.what, event.container, event.code) for event in web.events[-4:]] == [
        ("TERM", "app", None), ("ended", "app", 0), ("TERM", CONTAINER, None), ("ended", CONTAINER, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
def test_a_job_is_done_when_its_work_is(town: Town, code: int, phase: str) -> None:
    town.start_ca()
    orders = town.pod("orders", 1, SERVE).start()
    up(orders)
    job = town.pod("web", 1, f"{GET}sys.exit({code})", restartPolicy="Never").start()
    job.until(phase)
    eventually("its sidecar ends", lambda: job.order("ended") == ["app", CONTAINER])
    assert job.processes["app"].text() == "200\n"
    assert job.events[-1].code == 0
    assert "KILL" not in [event.what for event in job.events]


def test_a_sidecar_that_dies_comes_back_alone(town: Town) -> None:
    town.start_ca()
    orders, web = town.pod("orders", 1, SERVE).start(), town.pod("web", 1, GOODBYE).start()
    up(orders, web)
    before = web.processes["app"].pid
    web.processes[CONTAINER].signal(signal.SIGKILL)
    eventually("it has started again", lambda: web.order("started") == [CONTAINER, CONTAINER])
    assert web.processes["app"].pid == before
    assert web.processes["app"].code is None
    assert web.host.within(answers_well, URL, 5.0)


def scale_down(town: Town, dice: random.Random, runs: int) -> Tally:
    """One of two copies is deleted at a random moment, under load, and comes back; the load is one, and open-loop."""
    web, copies = a_caller_and_two_copies(town)
    load = NonceLoad(CALL_PORT, rate=60.0, host="orders")
    web.host.within(load.__enter__)
    try:
        for number in range(runs):
            time.sleep(dice.uniform(0.3, 1.5))
            which = number % 2
            copies[which].delete()
            copies[which] = again(town, copies[which], number).start()
            up(copies[which])
            eventually("web asks both again", lambda: both_available(web), 60)
    finally:
        tally = load.stop()
    return tally


def a_caller_and_two_copies(town: Town) -> tuple[Kubelet, list[Kubelet]]:
    """The pods of web, and of orders twice; all up."""
    town.start_ca()
    copies = [town.pod("orders", number, SERVE).start() for number in (1, 2)]
    both = f"10.77.0.21:{ports.INBOUND}', '10.77.0.22"
    web = town.pod("web", 1, GOODBYE, calls=both).start()
    up(*copies, web)
    return web, copies


def both_available(web: Kubelet) -> bool:
    """Whether web's sidecar takes both copies for well, as a rolling update waits before it goes on: an address that
    came back is asked again after a back-off only, and with the other one deleted in it there would be nobody.
    """
    socket = web.volumes["mesh-run"] / "own" / "web.sock"
    endpoints = client.call(socket, "GET", "/endpoints")[1]["endpoints"]
    return [each["state"] for each in endpoints] == ["available", "available"]


def again(town: Town, gone: Kubelet, number: int) -> Kubelet:
    """The same pod once more, at its address, as a new one."""
    made = gone.again(number)
    town.pods.append(made)
    return made


def test_scaling_down_loses_no_request(town: Town) -> None:
    web, copies = a_caller_and_two_copies(town)
    load = NonceLoad(CALL_PORT, rate=60.0, host="orders")
    web.host.within(load.__enter__)
    try:
        time.sleep(random.Random(37).uniform(0.3, 1.5))
        copies[0].delete()
        time.sleep(1)
    finally:
        tally = load.stop()
    tally.assert_flawless()


@pytest.mark.deep
def test_two_hundred_times(town: Town) -> None:
    """Down and up again. Endpoints stand in the config here, so nobody waits for a pod's readiness: a request that
    comes between its sidecar and its application goes to the other copy, a POST too.
    """
    scale_down(town, random.Random(38), 200).assert_flawless()


def test_a_sidecar_alone_may_restart(town: Town) -> None:
    """It drains, its application knows nothing of it, and callers go to the other copy meanwhile."""
    web, copies = a_caller_and_two_copies(town)
    application = copies[0].processes["app"].pid
    load = NonceLoad(CALL_PORT, rate=60.0, host="orders")
    web.host.within(load.__enter__)
    try:
        time.sleep(1)
        copies[0].processes[CONTAINER].signal(signal.SIGTERM)
        eventually("it has started again", lambda: copies[0].order("started") == [CONTAINER, CONTAINER])
        eventually("web asks both again", lambda: both_available(web), 60)
    finally:
        tally = load.stop()
    tally.assert_flawless()
    assert copies[0].processes["app"].pid == application


def test_a_host_that_dies_takes_only_what_it_was_doing(town: Town) -> None:
    """Sidecar and application are killed at once: what was under way there may fail; all else is well."""
    web, copies = a_caller_and_two_copies(town)
    load = NonceLoad(CALL_PORT, rate=60.0, host="orders")
    web.host.within(load.__enter__)
    try:
        time.sleep(1)
        for name in (CONTAINER, "app"):
            copies[0].processes[name].signal(signal.SIGKILL)
        eventually("both are back", lambda: copies[0].order("created").count("app") == 2, 60)
        eventually("web asks both again", lambda: both_available(web), 60)
    finally:
        tally = load.stop()
    assert not tally.crossed, tally.summary()
    assert not tally.torn, tally.summary()
    assert len(tally.failed) <= AT_ONCE, tally.failed
    assert all(" POST " in each or "status 50" in each for each in tally.failed), tally.failed


def test_the_ca_alone_may_restart(town: Town) -> None:
    town.start_ca()
    orders, web = town.pod("orders", 1, SERVE).start(), town.pod("web", 1, GOODBYE).start()
    up(orders, web)
    load = NonceLoad(CALL_PORT, rate=60.0, host="orders")
    web.host.within(load.__enter__)
    try:
        time.sleep(0.5)
        assert town.ca is not None
        town.ca.kill()
        time.sleep(0.7)
        town.start_ca()
        time.sleep(0.7)
    finally:
        tally = load.stop()
    tally.assert_flawless()
