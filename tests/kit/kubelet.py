"""A small stand-in for the kubelet: runs the containers of one pod as processes, in Kubernetes' published order.

What it follows, and where that is written:

    init containers, in order     kubernetes.io/docs/concepts/workloads/pods/init-containers: each must end with success
                                  before the next begins
    native sidecars               kubernetes.io/docs/concepts/workloads/pods/sidecar-containers, and KEP-753: an init
                                  container with `restartPolicy: Always`; what follows it begins once it has started,
                                  that is, once its startupProbe has passed; when it ends it is started again, whatever
                                  the pod's own restartPolicy says
    startupProbe                  …/concepts/workloads/pods/pod-lifecycle: every `periodSeconds`; after
                                  `failureThreshold` failures in a row the container is killed and started again
    deletion                      …/pod-lifecycle#pod-termination, KEP-753: SIGTERM to all main containers; once they
                                  have ended, to the sidecars one by one in reverse order; whoever is left when
                                  `terminationGracePeriodSeconds` (30) have passed gets SIGKILL
    completion                    …/sidecar-containers#sidecar-containers-and-jobs: a pod whose main containers have all
                                  ended is done, and its sidecars are then ended in the same way

What it is not: images, users, capabilities and mounts are podman's part (tests.kit.kube_pod). A container is its real
command, run in the pod's own network namespace; a path below a `mountPath` becomes the volume's folder. Back-off is
short, so that a test need not wait for ten seconds.
"""

from __future__ import annotations

import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.netns import Host
from tests.kit.processes import Process, eventually

GRACE = 30.0  # seconds, Kubernetes' default
BACK_OFF = 0.2  # seconds before a container is started again; Kubernetes begins with 10
TICK = 0.02
Container = Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    """What happened to a container: created, started, ended, TERM or KILL."""

    what: str
    container: str
    code: int | None = None


class Kubelet:
    """One pod on one host. `images` has the entrypoint of each image; `volumes` the folder of each volume."""

    def __init__(
        self,
        pod: Mapping[str, Any],
        host: Host,
        folder: Path,
        *,
        images: Mapping[str, Sequence[str]],
        volumes: Mapping[str, Path],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.pod = pod
        self.host = host
        self.events: list[Event] = []
        self.phase = "Pending"
        self.processes: dict[str, Process] = {}
        self.volumes = volumes
        self._folder, self._images, self._env = folder, images, dict(env or {})
        self._spec = pod["spec"]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="kubelet")
        self._fault: BaseException | None = None
        folder.mkdir(parents=True, exist_ok=True)

    # ---- what a test asks for ----------------------------------------------------------------------------------------

    def start(self) -> Kubelet:
        """Begin; returns at once."""
        self._thread.start()
        return self

    def until(self, phase: str, seconds: float = 60.0) -> None:
        """Wait for a phase: Running, Succeeded, Failed."""

        def reached() -> bool:
            if self._fault is not None:
                raise self._fault
            return self.phase == phase

        try:
            eventually(f"the pod is {phase}", reached, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.phase}\n{self.tails()}") from None

    def delete(self) -> None:
        """Delete the pod, and wait until it is gone."""
        self._stop.set()
        self._thread.join()
        if self._fault is not None:
            raise self._fault

    def again(self, number: int) -> Kubelet:
        """The next pod of the same description at the same address, as a StatefulSet makes it."""
        return Kubelet(
            self.pod, self.host, self._folder / f"again-{number}", images=self._images, volumes=self.volumes,
            env=self._env,
        )  # fmt: skip

    def order(self, *what: str) -> list[str]:
        """`container` for each event of these kinds, in the order in which they happened."""
        return [event.container for event in self.events if event.what in what]

    def tails(self) -> str:
        """The ends of all logs, for a failing test."""
        return "\n".join(process.tail() for process in self.processes.values())

    # ---- a pod's life ------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            if self._init():
                self._run()
            self._end()
        except BaseException as fault:
            self._fault = fault
        finally:
            for process in self.processes.values():
                process.stop(0)

    def _init(self) -> bool:
        """Init containers and sidecars in order. False where the pod is deleted or failed meanwhile."""
        for container in self._spec.get("initContainers") or []:
            done = self._start_sidecar if is_sidecar(container) else self._to_the_end
            if not done(container):
                return False
        return True

    def _to_the_end(self, container: Container) -> bool:
        while not self._stop.is_set():
            process = self._create(container)
            self._wait(lambda process=process: process.code is not None)
            if process.code is None:
                return False
            self._ended(container)
            if process.code == 0:
                return True
            if self._spec.get("restartPolicy") == "Never":
                self.phase = "Failed"
                return False
            self._stop.wait(BACK_OFF)
        return False

    def _start_sidecar(self, container: Container) -> bool:
        """Start it, and wait until it has started: its startup probe passes, if it has one."""
        probe = container.get("startupProbe")
        while not self._stop.is_set():
            process, failures = self._create(container), 0
            while probe is not None and process.code is None and not self._stop.is_set():
                if self._passes(probe):
                    break
                failures += 1
                if failures >= probe.get("failureThreshold", 3):
                    self._signal(container, signal.SIGKILL)
                self._stop.wait(probe.get("periodSeconds", 10))
            if self._stop.is_set():
                return False
            if process.code is None:
                self.events.append(Event("started", container["name"]))
                return True
            self._ended(container)
            self._stop.wait(BACK_OFF)
        return False

    def _run(self) -> None:
        """All main containers at once, until they have ended or the pod is deleted; sidecars are kept up."""
        for container in self._mains:
            self._create(container)
        self.phase = "Running"
        while not self._stop.wait(TICK):
            for container in self._sidecars:
                if self._gone(container):
                    self._stop.wait(BACK_OFF)
                    self._start_sidecar(container)
            over = [self._over(container) for container in self._mains]
            if all(over):
                codes = [self.processes[container["name"]].code for container in self._mains]
                self.phase = "Failed" if any(codes) else "Succeeded"
                return

    def _over(self, container: Container) -> bool:
        """Whether a main container has ended for good; it is started again where the pod's restartPolicy says so."""
        process = self.processes[container["name"]]
        if process.code is None:
            return False
        policy = self._spec.get("restartPolicy", "Always")
        if not self._gone(container):
            return policy == "Never" or (policy == "OnFailure" and process.code == 0)
        if policy == "Always" or (policy == "OnFailure" and process.code):
            self._stop.wait(BACK_OFF)
            self._create(container)
            return False
        return True

    def _end(self) -> None:
        """The order of an end, within one grace period for all."""
        deadline = time.monotonic() + self._spec.get("terminationGracePeriodSeconds", GRACE)
        self._terminate(self._mains, deadline)
        for container in reversed(self._spec.get("initContainers") or []):
            self._terminate([container], deadline)

    # ---- containers --------------------------------------------------------------------------------------------------

    @property
    def _mains(self) -> list[Container]:
        return list(self._spec["containers"])

    @property
    def _sidecars(self) -> list[Container]:
        return [each for each in self._spec.get("initContainers") or [] if is_sidecar(each)]

    def _create(self, container: Container) -> Process:
        name = container["name"]
        self.events.append(Event("created", name))
        command = container.get("command") or self._images[container["image"]]
        words = [self._place(container, word) for word in (*command, *container.get("args", ()))]
        env = {each["name"]: self._place(container, each["value"]) for each in container.get("env", ())}
        process = Process(name, self.host.command(words), self._folder / f"{name}.log", env={**self._env, **env})
        self.processes[name] = process
        return process

    def _place(self, container: Container, word: str) -> str:
        """A word with a path below a mount as it is on this machine."""
        mounts = sorted(container.get("volumeMounts", ()), key=lambda each: -len(each["mountPath"]))
        for mount in mounts:
            if word == mount["mountPath"] or word.startswith(mount["mountPath"] + "/"):
                return f"{self.volumes[mount['name']]}{word[len(mount['mountPath']):]}"
        return word

    def _passes(self, probe: Mapping[str, Any]) -> bool:
        """Whether an HTTP probe of the pod's own address passes: a status from 200 to 399 in time."""
        get = probe["httpGet"]
        url = f"http://{self.host.address}:{get['port']}{get.get('path', '/')}"
        return self.host.within(answers_well, url, float(probe.get("timeoutSeconds", 1)))

    def _gone(self, container: Container) -> bool:
        """Whether it has ended and nobody has noted so."""
        name = container["name"]
        noted = next(event for event in reversed(self.events) if event.container == name).what == "ended"
        if self.processes[name].code is None or noted:
            return False
        self._ended(container)
        return True

    def _ended(self, container: Container) -> None:
        name = container["name"]
        self.events.append(Event("ended", name, self.processes[name].code))

    def _signal(self, container: Container, number: signal.Signals) -> None:
        self.events.append(Event(number.name.removeprefix("SIG"), container["name"]))
        self.processes[container["name"]].signal(number)

    def _terminate(self, containers: Sequence[Container], deadline: float) -> None:
        """SIGTERM to all of these that run, and SIGKILL to those that do at the deadline."""
        running = [each for each in containers if each["name"] in self.processes and not self._over_already(each)]
        for container in running:
            self._signal(container, signal.SIGTERM)
        for container in running:
            process = self.processes[container["name"]]
            while process.code is None and time.monotonic() < deadline:
                time.sleep(TICK)
            if process.code is None:
                self._signal(container, signal.SIGKILL)
                process.wait()
            self._ended(container)

    def _over_already(self, container: Container) -> bool:
        if self.processes[container["name"]].code is None:
            return False
        self._gone(container)
        return True

    def _wait(self, done: Callable[[], bool]) -> None:
        while not done() and not self._stop.wait(TICK):
            pass


def is_sidecar(container: Container) -> bool:
    """Whether an init container is a native sidecar."""
    return bool(container.get("restartPolicy") == "Always")


def answers_well(url: str, seconds: float) -> bool:
    """Whether a GET is answered with 200 to 399 in time."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            return 200 <= int(answer.status) < 400
    except (OSError, urllib.error.HTTPError):
        return False
