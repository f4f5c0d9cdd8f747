"""`mesh injector`: the mutating webhook that puts sidecars into pods as they are made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sidecar.cli.console import Code, Failure, parse_duration
from sidecar.cli.inject import options_of, set_option
from sidecar.config import ports
from sidecar.deploy.names import ENROLMENT_PATH, STATE_PATH

if TYPE_CHECKING:
    from sidecar.deploy.kube.ca_bundle import Cluster
    from sidecar.deploy.kube.webhook import Webhook, WebhookConfig

ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
SERVICE: Final = "mesh-injector"
EXAMPLES = """\b
Examples:
  mesh injector
  mesh injector --set memory-limit=512Mi --image registry.example.com/mesh:0.1.0
  mesh injector --enrolment injector.json --dns-name mesh-injector.mesh-system.svc --configuration ''

It runs in the cluster, beside the CA (`mesh install` prints the manifests). Its certificate is one of the mesh: the CA
needs an entry for it with the DNS name of its Service. It keeps the caBundle of its MutatingWebhookConfiguration
current. Pods of namespaces with the label sidecar.mesh/inject=enabled are refused while it is away: a pod without a
sidecar would be outside the mesh. It gives the same pods as `mesh inject`."""


@click.command(epilog=EXAMPLES)
@click.option("--host", help="Address to listen on.  [default: every one]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=ports.INJECTOR, show_default=True,
    help="HTTPS, for the API server.",
)  # fmt: skip
@click.option(
    "--health-port", type=click.IntRange(0, 65535), default=ports.HEALTH, show_default=True,
    help="/livez and /readyz, for the kubelet; /metrics.",
)  # fmt: skip
@click.option(
    "--enrolment", type=click.Path(path_type=Path), default=Path(ENROLMENT_PATH), show_default=True,
    help="Who the injector is and whom to trust at first contact.",
)  # fmt: skip
@click.option(
    "--state", type=click.Path(path_type=Path), help=f"Folder of its own memory.  [default: {STATE_PATH}/injector]"
)
@click.option("--dns-name", help=f"The name in its certificate.  [default: {SERVICE}.NAMESPACE.svc]")
@click.option(
    "--configuration", default=SERVICE, show_default=True, metavar="NAME",
    help="The MutatingWebhookConfiguration whose caBundle it keeps; '' for none.",
)  # fmt: skip
@click.option("--api", default="", metavar="URL", help="The API server.  [default: that of our cluster]")
@click.option("--token-file", type=click.Path(path_type=Path), default=Path(ACCOUNT, "token"), help="Our token for it.")
@click.option("--ca-file", type=click.Path(path_type=Path), default=Path(ACCOUNT, "ca.crt"), help="Its certificates.")
@click.option("--lame-duck", default="5s", show_default=True, help="How long it goes on after SIGTERM.")
@click.option(
    "--mode", type=click.Choice(["redirect", "explicit"]), help="For pods that do not say.  [default: redirect]"
)
@click.option("--image", help="The sidecar's image, for pods that do not say.")
@set_option
def injector(
    host: str | None,
    port: int,
    health_port: int,
    enrolment: Path,
    state: Path | None,
    dns_name: str | None,
    configuration: str,
    api: str,
    token_file: Path,
    ca_file: Path,
    lame_duck: str,
    mode: str | None,
    image: str | None,
    settings: tuple[str, ...],
) -> int:
    """The mutating webhook: every new pod of the namespaces that ask for it gets its sidecar, or is refused."""
    import trio

    from certs.enrolment import Enrolment
    from certs.store import ensure_private_dir
    from sidecar.deploy.kube.webhook import Webhook, WebhookConfig
    from sidecar.net.clock import SystemClock
    from sidecar.telemetry.log import Log

    options = options_of(settings, mode=mode, image=image)
    if not enrolment.is_file():
        advice = "`mesh ca enrolment injector --kubernetes …` makes one where the CA is; name it with --enrolment."
        raise Failure(f"there is no enrolment file {enrolment}.", advice, Code.USAGE)
    state = state or Path(STATE_PATH, "injector")
    cluster = _cluster(api, token_file, ca_file) if configuration else None
    config = WebhookConfig(
        Enrolment.load(enrolment), state, dns_name or _own_name(), host or "", port, health_port, options, cluster,
        configuration, parse_duration(lame_duck),
    )  # fmt: skip
    ensure_private_dir(state)
    _confine(config, enrolment)
    log = Log()
    log.capture()
    try:
        trio.run(_live, Webhook(config, SystemClock(), log))
    except OSError as error:
        raise Failure(f"cannot listen: {error.strerror or error}.", "", Code.UNREACHABLE) from None
    finally:
        log.close()
    return Code.OK


def _cluster(api: str, token_file: Path, ca_file: Path) -> Cluster:
    from sidecar.deploy.kube.ca_bundle import Cluster
    from sidecar.discovery.slice_api import CannotAsk, Surroundings

    try:
        return Cluster.of(api, token_file, ca_file, Surroundings.of(os.environ))
    except (CannotAsk, ValueError) as error:
        advice = "Name the API server with --api, or say --configuration '' where somebody else keeps the caBundle."
        raise Failure(f"{error}.", advice, Code.USAGE) from None


def _own_name() -> str:
    """The name of our Service, by the namespace that Kubernetes tells every pod."""
    try:
        namespace = Path(ACCOUNT, "namespace").read_text("ascii").strip()
    except (OSError, ValueError):
        advice = f"Outside a cluster, say --dns-name {SERVICE}.NAMESPACE.svc."
        raise Failure("the namespace that we run in is not known.", advice, Code.USAGE) from None
    return f"{SERVICE}.{namespace}.svc"


def _confine(config: WebhookConfig, enrolment: Path) -> None:
    """Put the process's hygiene in force (best effort): it writes its state folder alone. Raises MeshError."""
    from certs.enrolment import KubernetesToken, UnixSocket
    from sidecar.runtime import hygiene

    proof = config.enrolment.proof
    read: list[str | Path] = [enrolment]
    if isinstance(proof, KubernetesToken | UnixSocket):
        read.append(proof.path)
    if config.cluster is not None:
        read += [config.cluster.token_file, config.cluster.ca_file]
    hygiene.apply(hygiene.Folders.around(read=read, folders=[config.state_dir]))


async def _live(webhook: Webhook) -> None:
    """Serve until SIGTERM or SIGINT, and a little longer. Raises OSError where a port is taken."""
    import signal

    import trio

    failure: OSError | None = None
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            try:
                port, health = await nursery.start(webhook.run)
            except OSError as error:
                failure = error  # raised outside, so that it comes out as itself and not in a group
                nursery.cancel_scope.cancel()
            else:
                webhook.log.info("listening", port=port, health_port=health)
                async for _ in signals:
                    await webhook.drain()
                    nursery.cancel_scope.cancel()
                    break
    if failure is not None:
        raise failure
