"""Time-outs and retries that can never act are named where they were written; those that can are not."""

from __future__ import annotations

import pytest

from sidecar.config.load import load_bytes
from sidecar.config.mistakes import ConfigErrors

MESH = """
trust_domain: demo.mesh
%(more)s
services:
  orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]}
  db: {inbound: [{app: '127.0.0.1:5432', protocol: tcp}], allow: [{from: web}]}
  web:
    outbound:
      - {to: orders, listen: '127.0.0.1:9001'%(orders)s}
      - {to: db, listen: '127.0.0.1:9002'%(db)s}
    %(web)s
"""
UP, RAW, WEB = "services.web.outbound[0].", "services.web.outbound[1].", "services.web."


def loaded(web: str = "", orders: str = "", db: str = "", more: str = "", *, raw: bool = True):
    """The config, and (path, code) of its warnings."""
    text = MESH % {"web": web, "orders": orders and f", {orders}", "db": db and f", {db}", "more": more}
    if not raw:
        text = "\n".join(line for line in text.splitlines() if "db" not in line)
    found = load_bytes(text.encode(), now=0.0)
    return found.config, [(warning.path, warning.code) for warning in found.warnings]


@pytest.mark.parametrize(
    ("web", "orders", "found"),
    [
        ("timeouts: {total: 20s, per_try: 2s}", "", []),
        ("timeouts: {total: 2s}", "", []),  # a default that happens not to matter is no mistake
        ("", "timeouts: {total: 2s}", []),
        ("timeouts: {total: 2s, per_try: 2s}", "", [(WEB + "timeouts.per_try", "MESH100")]),
        ("timeouts: {total: 2s, per_try: 2s}", "timeouts: {total: off}", []),
        ("timeouts: {per_try: 3s}", "timeouts: {total: 2s}", [(WEB + "timeouts.per_try", "MESH100")]),
        ("timeouts: {total: 2s}", "timeouts: {per_try: 3s}", [(UP + "timeouts.per_try", "MESH100")]),
        ("timeouts: {total: 2s, response_head: 3s}", "", [(WEB + "timeouts.response_head", "MESH100")]),
        ("timeouts: {total: 2s}", "timeouts: {response_head: 3s}", [(UP + "timeouts.response_head", "MESH100")]),
        ("timeouts: {per_try: 30s}", "", [(WEB + "timeouts.per_try", "MESH100")]),
        ("timeouts: {per_try: 1s}", "retries: {resends: 0}", [(WEB + "timeouts.per_try", "MESH101")]),
        ("", "retries: {resends: 0}, timeouts: {per_try: 1s}", [(UP + "timeouts.per_try", "MESH101")]),
        ("", "retries: {resends: 0, statuses: 503}", [(UP + "retries.statuses", "MESH102")]),
        ("", "retries: {resends: 0, grpc_statuses: unavailable}", [(UP + "retries.grpc_statuses", "MESH102")]),
        ("", "retries: {resends: 2}, timeouts: {total: 20ms}", [(UP + "retries.resends", "MESH102")]),
        ("limits: {retries: 600}", "", [(WEB + "limits.retries", "MESH103")]),
        ("limits: {retries: 60}", "", []),
        ("limits: {retries: 60}", "retries: {resends: 0}", [(WEB + "limits.retries", "MESH103")]),
    ],
)
def test_what_contradicts_itself(web, orders, found):
    assert loaded(web, orders)[1] == found


def test_a_time_to_connect_that_is_longer_than_all_there_is():
    """Not where raw TCP connects too."""
    assert loaded("timeouts: {total: 2s, connect: 3s}", raw=False)[1] == [(WEB + "timeouts.connect", "MESH100")]
    assert loaded("timeouts: {total: 2s, connect: 3s}")[1] == []


def test_raw_tcp_has_no_requests():
    assert loaded(db="timeouts: {total: 2s}")[1] == [(RAW + "timeouts.total", "MESH050")]


def test_an_upstream_has_what_its_service_has_and_the_service_what_the_defaults_have():
    more = "defaults: {timeouts: {total: 30s, per_try: 3s, response_head: 9s}}"
    config, _ = loaded("timeouts: {per_try: off}", "timeouts: {total: off}", more=more)
    orders, db = config.services["web"].outbound
    assert (orders.timeouts.total, orders.timeouts.per_try, orders.timeouts.response_head) == (None, None, 9.0)
    assert (db.timeouts.total, db.timeouts.per_try) == (30.0, None)
    assert config.services["orders"].timeouts.total == 30.0


@pytest.mark.parametrize(
    ("written", "meant"),
    [("unavailble", "did you mean unavailable?"), ("14", "did you mean unavailable?"), ("OK", "write unavailable"),
     ("deadline-exceeded", "did you mean deadline_exceeded?")],
)  # fmt: skip
def test_statuses_of_grpc_go_by_name(written, meant):
    with pytest.raises(ConfigErrors) as refused:
        loaded(orders=f"retries: {{grpc_statuses: {written}}}")
    (mistake,) = refused.value.mistakes
    assert mistake.path == UP + "retries.grpc_statuses"
    assert meant in mistake.hint
    config, _ = loaded(orders="retries: {grpc_statuses: [UNAVAILABLE, aborted]}")
    assert config.services["web"].outbound[0].retries.grpc_statuses == (14, 10)
