"""`mesh certs issue` and `mesh certs export`: certificates as files, for what is no sidecar, and for other tools."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.console import Code, Failure, output_option, print_json, remaining
from sidecar.cli.sidecars import one, run_dir_option

if TYPE_CHECKING:
    from certs.enrolment import Enrolment
    from sidecar.identity.answers import Issued

NAMES = {"svid": "svid.pem", "key": "svid.key", "bundle": "bundle.pem"}


@click.command(
    epilog="\b\nExamples:\n  mesh certs issue --enrolment partner.json --out partner\n"
    "  curl --cert partner/svid.pem --key partner/svid.key --cacert partner/bundle.pem …"
)
@click.option(
    "--enrolment", "file", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="An enrolment file, from `mesh ca key` or `mesh ca token`.",
)  # fmt: skip
@click.option(
    "--out", "folder", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="A folder for svid.pem (with its chain), svid.key (0600, not encrypted) and bundle.pem.",
)  # fmt: skip
@click.option("--ca", "address", metavar="HOST:PORT", default="", help="The CA.  [default: the enrolment file's]")
@click.option("--force", is_flag=True, help="Replace what is there.")
@output_option
def issue(file: Path, folder: Path, address: str, force: bool, output: str) -> int:
    """Enrol with the CA and keep key and certificate as files, for a client or server that has no sidecar.

    The key is made here. Nobody renews it: ask again before it ends, and gate on it with `mesh certs check`. What is
    issued is in the CA's log as any other. Exit code 3: the CA is out of reach.
    """
    from certs.enrolment import Enrolment
    from certs.errors import MeshError
    from sidecar.identity.errors import CaUnreachable

    taken = [name for name in NAMES.values() if (folder / name).exists()]
    if taken and not force:
        raise Failure(f"{folder} has {', '.join(taken)} already.", "Give --force to replace them.", Code.USAGE)
    try:
        enrolment = Enrolment.load(file)
        issued = _enrol(enrolment, folder, address)
        _write(folder, issued)
    except CaUnreachable as error:
        raise Failure(str(error), "Is `mesh ca serve` running there?", Code.UNREACHABLE) from None
    except (MeshError, OSError) as error:
        raise Failure(str(error)) from None
    svid = issued.svid
    if output == "json":
        files = {what: str(folder / name) for what, name in NAMES.items()}
        print_json({"spiffe_id": svid.spiffe_id.text, "serial": svid.serial, "not_after": svid.not_after, **files})
    else:
        click.echo(f"{folder / NAMES['svid']}: {svid.spiffe_id}, good for {remaining(svid.not_after, time.time())}")
    return Code.OK


def _enrol(enrolment: Enrolment, folder: Path, address: str) -> Issued:
    """One enrolment, as a sidecar would make it; the key that a join token is exchanged for is kept in the folder."""
    import trio

    from certs.store import ensure_private_dir
    from sidecar.identity.ca_client import Trust, connect
    from sidecar.identity.enrol import enrol
    from sidecar.identity.state import StateFolder
    from sidecar.net.clock import SystemClock

    ensure_private_dir(folder)
    state = StateFolder(folder, enrolment)
    trust = Trust(enrolment.trust_domain, None, enrolment.root_sha256)

    async def ask() -> Issued:
        async with await connect(address or enrolment.ca_address, trust, None, SystemClock()) as session:
            return await enrol(session, enrolment, state)

    return trio.run(ask)


def _write(folder: Path, issued: Issued) -> None:
    """Key first: a certificate that is there has its key beside it."""
    from certs.keys import save_key
    from certs.store import write_private

    save_key(folder / NAMES["key"], issued.svid.key, None)
    write_private(folder / NAMES["svid"], issued.svid.chain_pem())
    write_private(folder / NAMES["bundle"], issued.bundle.to_pem())


@click.command(
    epilog="\b\nExamples:\n  mesh certs export orders --out orders.pem\n  mesh certs export orders --what bundle\n"
    "  mesh certs export orders --what spiffe-bundle > demo.mesh.json"
)
@click.argument("service")
@click.option(
    "--what", type=click.Choice(["chain", "bundle", "spiffe-bundle"]), default="chain", show_default=True,
    help="The certificate with its chain, or the roots that it trusts, as PEM or as a SPIFFE bundle (JWK Set).",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A file.  [default: standard output]")
@run_dir_option
@output_option
def export(service: str, what: str, out: Path | None, run_dir: Path | None, output: str) -> int:
    """What a running service shows, or trusts, as a file for other tools. Never its key, which is in memory only."""
    held = one(run_dir, service).get("/certs")
    if what == "chain" and not held.get("chain"):
        raise Failure(f"{service} has no certificate yet.", "`mesh status` says why.")
    content = _content(held, what)
    if output == "json":
        document: dict[str, Any] = {"service": service, "what": what, "content": content}
        if out is not None:
            document["file"] = str(out)
        _save(out, content)
        print_json(document)
    elif out is not None:
        _save(out, content)
        click.echo(f"{out}: {what} of {service}")
    else:
        click.echo(content, nl=False)
    return Code.OK


def _save(out: Path | None, content: str) -> None:
    if out is None:
        return
    try:
        out.write_text(content)
    except OSError as error:
        raise Failure(f"{out}: {error.strerror}.", "", Code.USAGE) from None


def _content(held: dict[str, Any], what: str) -> str:
    if what == "chain":
        return "".join(held["chain"])
    bundles = held.get("bundles") or []
    if what == "bundle":
        return "".join(str(bundle["roots"]) for bundle in bundles)
    from certs.bundle import TrustBundle
    from certs.describe import bundle_of_pem
    from certs.spiffe import TrustDomain

    own = str(held.get("spiffe_id", "")).removeprefix("spiffe://").partition("/")[0]
    for bundle in bundles:
        if bundle["trust_domain"] == own:
            roots = bundle_of_pem(TrustDomain.parse(own), str(bundle["roots"]).encode()).roots
            made = TrustBundle(TrustDomain.parse(own), tuple(roots), int(bundle.get("sequence") or 0))
            return json.dumps(json.loads(made.to_jwks()), indent=2) + "\n"
    raise Failure("it trusts no root of its own trust domain.", "`mesh status` says what is wrong.")
