"""The inventory as one page of HTML: nothing is loaded from elsewhere, it needs no script, prints, and reads aloud."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from sidecar.cli.sidecars import short
from sidecar.policy.inventory import WORDS

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #57606a; --line: #d0d7de; --paper: #fff; --band: #f6f8fa;
  --used: #1a7f37; --dormant: #9a6700; --not_allowed: #cf222e; --unused: #57606a; --unknown: #57606a }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --paper: #0d1117;
  --band: #151b23; --used: #3fb950; --dormant: #d29922; --not_allowed: #f85149; --unused: #9198a1;
  --unknown: #9198a1 } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 84rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem } .soft { color: var(--soft) }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100% }
caption { text-align: left; color: var(--soft); padding: .3rem 0 }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
thead th { background: var(--band); position: sticky; top: 0 } td.number { text-align: right }
code, pre { font: 13px/1.45 ui-monospace, monospace } pre { background: var(--band); padding: .8rem; overflow-x: auto }
.state { font-weight: 600 }
@media print { :root { --ink: #000; --soft: #333; --line: #999; --paper: #fff; --band: #fff; --used: #000;
  --dormant: #000; --not_allowed: #000; --unused: #000; --unknown: #000 }
  body { margin: 0; max-width: none; font-size: 10px } .scroll { overflow: visible }
  thead { display: table-header-group } tr, pre { break-inside: avoid } pre { white-space: pre-wrap } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
EDGES = ("From", "To", "Route", "Rule", "Proved by", "Protocol", "State", "First use", "Last use", "Count", "Owner")
CREDENTIALS = ("What", "Id", "Identity", "State", "Last use", "Removed by")


def page(document: dict[str, Any]) -> str:
    """The whole page."""
    edges = document["edges"]
    asked = ", ".join(document["asked"]) or "none"
    counts = "; ".join(
        f"{count} {state.replace('_', ' ')} ({words})"
        for state, words in WORDS.items()
        if (count := sum(row["state"] == state for row in edges))
    )
    body = [
        f"<h1>Inventory of {escape(document['trust_domain'])}</h1>",
        f"<p>Made {escape(document['made'])}. Sidecars that were asked: {escape(asked)}. "
        f"Dormant: not used for {document['days']} days.</p>",
        f"<p class=soft>{escape(counts) or 'No edge.'}</p>",
        "<h2 id=edges>Edges</h2>",
        _table("Every edge that is allowed or was seen", EDGES, map(_edge, edges), "edges"),
    ]
    if document["credentials"]:
        rows = (_credential(each) for each in document["credentials"])
        body += ["<h2 id=credentials>Credentials</h2>", _table("Entries and keys of the CA", CREDENTIALS, rows,
                                                             "credentials")]  # fmt: skip
    if document["changes"]:
        body.append("<h2 id=changes>What removes the dormant grants</h2>")
        body += [_change(each) for each in document["changes"]]
    title = f"Inventory of {escape(document['trust_domain'])}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(body) + "\n</main></body></html>\n"
    )


def _table(caption: str, heads: Sequence[str], rows: Iterable[str], label: str) -> str:
    cells = "".join(f'<th scope="col">{each}</th>' for each in heads)
    scroll = f'<div class="scroll" role="region" aria-labelledby="{label}" tabindex="0">'
    head = f"<table><caption>{caption}</caption><thead><tr>{cells}</tr></thead><tbody>"
    return f"{scroll}{head}\n" + "\n".join(rows) + "\n</tbody></table></div>"


def _edge(row: dict[str, Any]) -> str:
    what = f"{row['methods']} {row['route']}".strip() or "-"
    return _row(
        f'<th scope="row">{_named(row["caller"])}</th>', _named(row["called"], "td"), _cell(what, code=True),
        _cell(row["rule"] or "-"), _cell(row["auth"]), _cell(row["protocol"]), _state(row["state"]),
        _cell(row["first"] or "-"), _cell(row["last"] or "never"),
        f'<td class="number">{row["count"]}</td>', _cell(row["owner"] or "-"),
    )  # fmt: skip


def _credential(each: dict[str, Any]) -> str:
    return _row(
        f'<th scope="row">{escape(each["kind"])}</th>', _cell(each["id"], code=True), _named(each["spiffe_id"], "td"),
        _state(each["state"]), _cell(each["last"] or "never"), _cell(each["change"] or "-", code=bool(each["change"])),
    )  # fmt: skip


def _change(each: dict[str, Any]) -> str:
    what = f"<h3>{escape(each['what'])}</h3><p class=soft>{escape(each['where'])}</p>"
    return what + (f"<pre tabindex=0>{escape(each['diff'])}</pre>" if each["diff"] else "<p>By hand.</p>")


def _row(*cells: str) -> str:
    return f"<tr>{''.join(cells)}</tr>"


def _cell(text: str, *, code: bool = False) -> str:
    return f"<td><code>{escape(text)}</code></td>" if code else f"<td>{escape(text)}</td>"


def _named(identity: str, tag: str = "") -> str:
    """The short name; the whole one for who points at it."""
    name = f'<span title="{escape(identity)}">{escape(short(identity))}</span>'
    return f"<{tag}>{name}</{tag}>" if tag else name


def _state(state: str) -> str:
    return f'<td class="state" style="color: var(--{escape(state)})">{escape(state.replace("_", " "))}</td>'
