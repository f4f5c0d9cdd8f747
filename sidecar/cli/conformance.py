"""`mesh conformance`: by-passes and smuggling against any HTTP proxy, ours or another's."""

from __future__ import annotations

import datetime
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.console import Code, Failure, output_option, print_json, print_table

if TYPE_CHECKING:
    import ssl

    from sidecar.conformance.judge import Verdict
    from sidecar.conformance.runner import Target

EXAMPLES = """\b
Examples:
  mesh conformance http://127.0.0.1:8080 --origin 127.0.0.1:9000     the proxy's upstream is 127.0.0.1:9000
  mesh conformance https://127.0.0.1:17443 --cert web.crt --key web.key --ca ca.crt --host orders
  mesh conformance http://127.0.0.1:8080 --only 'framing/*' -o json > nginx.json
  mesh conformance http://127.0.0.1:8080 --http2 --origin 127.0.0.1:9000     HTTP/2 in, HTTP/1 to the origin
  mesh conformance --markdown nginx.json ours.json                   the tables of several runs, side by side
  mesh conformance --list"""


class HostPort(click.ParamType[tuple[str, int]]):
    """`host:port`, IPv6 in brackets."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Host and port of this text."""
        host, colon, port = str(value).rpartition(":")
        if not colon or not host or not port.isdigit():
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        return host.strip("[]"), int(port)


@click.command(epilog=EXAMPLES)
@click.argument("places", metavar="[URL | FILE...]", nargs=-1)
@click.option("--origin", metavar="LISTEN", type=HostPort(), help="Be the origin behind the proxy, on this HOST:PORT.")
@click.option("--host", default="", help="Host that good requests ask for.  [default: the URL's]")
@click.option("--origin-host", default="", help="Host that the origin sees for it, where the proxy rewrites it.")
@click.option("--cert", type=click.Path(path_type=Path), help="Our certificate chain, for https URLs.")
@click.option("--key", type=click.Path(path_type=Path), help="Its private key.")
@click.option("--ca", type=click.Path(path_type=Path), help="Roots for the proxy's own certificate.")
@click.option("--forward-proxy", metavar="HOST:PORT", type=HostPort(), help="Reach the URL by CONNECT through this.")
@click.option("--only", multiple=True, metavar="NAME", help="Cases by name or shell pattern; may be repeated.")
@click.option("--http2", is_flag=True, help="Speak HTTP/2: by ALPN for https URLs, by prior knowledge for others.")
@click.option("--mesh/--any", "ours", default=False, help="Hold it to what only a mesh sidecar promises, too.")
@click.option("--patience", default=1.0, show_default=True, help="Seconds without an answer that count as silence.")
@click.option("--label", default="", help="What the tables call it.  [default: the URL]")
@click.option("--list", "listing", is_flag=True, help="The corpus: each case, its section, its reason.")
@click.option("--markdown", is_flag=True, help="Tables from the JSON documents of earlier runs; no URL.")
@output_option
def conformance(
    places: tuple[str, ...],
    origin: tuple[str, int] | None,
    host: str,
    origin_host: str,
    cert: Path | None,
    key: Path | None,
    ca: Path | None,
    forward_proxy: tuple[str, int] | None,
    only: tuple[str, ...],
    http2: bool,
    ours: bool,
    patience: float,
    label: str,
    listing: bool,
    markdown: bool,
    output: str,
) -> int:
    """Send by-passes and smuggled requests at a proxy, over HTTP/1 or HTTP/2, and tell what became of each.

    Only against what is yours: the messages are hostile, and a careless proxy may serve others wrongly afterwards.

    With --origin the suite is the server behind the proxy and sees what was understood; without it the answers alone
    are judged, which shows less. A case passes where the message was refused, or forwarded in the one reading that it
    may have. Exit code 0: all passed, 1: not all, 3: the proxy cannot be reached.
    """
    from sidecar.conformance import report

    if listing:
        click.echo(report.corpus_table(http2=http2), nl=False)
        return Code.OK
    if markdown:
        click.echo(report.markdown([_load(place) for place in places]), nl=False)
        return Code.OK
    if len(places) != 1:
        raise Failure("say which proxy: one URL.", "mesh conformance http://127.0.0.1:8080", Code.USAGE)
    from sidecar.conformance.runner import Target

    target = Target(
        places[0], host=host, origin_host=origin_host, tls=_context(cert, key, ca, http2=http2), through=forward_proxy,
        patience=patience, http2=http2,
    )  # fmt: skip
    verdicts = _run(target, origin, only, ours, show=output == "text")
    if output == "json":
        today = datetime.datetime.now(datetime.UTC).date()
        print_json(report.document(label or places[0], verdicts, origin=origin is not None, when=today))
    else:
        click.echo(report.summary(verdicts))
    return Code.OK if all(verdict.passed for verdict in verdicts) else Code.NEGATIVE


def _run(
    target: Target, listen: tuple[str, int] | None, only: tuple[str, ...], ours: bool, *, show: bool
) -> list[Verdict]:
    from sidecar.conformance.corpus import choose
    from sidecar.conformance.origin import Origin
    from sidecar.conformance.report import findings
    from sidecar.conformance.runner import Unreachable, run

    cases = choose(only, ours, http2=target.http2)
    if not cases:
        raise Failure(f"no case is called {' or '.join(only)}.", "mesh conformance --list names them all.", Code.USAGE)
    with ExitStack() as stack:
        try:
            origin = stack.enter_context(Origin(*listen)) if listen is not None else None
            verdicts = run(target, cases, origin)
        except (Unreachable, OSError) as error:
            advice = "The proxy must listen, and with --origin its upstream must be that address."
            raise Failure(f"{target.url} cannot be tested: {error}", advice, Code.UNREACHABLE) from None
        except ValueError as error:
            raise Failure(str(error), "", Code.USAGE) from None
    if show and (found := findings(verdicts)):
        print_table(("case", "outcome", "seen", "why it matters"), found)
    return verdicts


def _context(cert: Path | None, key: Path | None, ca: Path | None, *, http2: bool) -> ssl.SSLContext | None:
    """TLS with our certificate. Names are not checked: SPIFFE identities have none, and this is a test."""
    if cert is None and key is None and ca is None and not http2:
        return None
    import ssl

    try:
        context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
        context.check_hostname = cert is None and key is None and ca is None
        if http2:
            context.set_alpn_protocols(["h2"])
        if cert is not None:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise Failure(f"certificate, key or roots cannot be used: {error}", "", Code.USAGE) from None
    return context


def _load(place: str) -> dict[str, Any]:
    try:
        document = json.loads(Path(place).read_text())
        if document["v"] != 1:
            raise ValueError(f"version {document['v']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"{place} is no document of an earlier run: {error}", "", Code.USAGE) from None
    assert isinstance(document, dict)
    return document
