"""EndpointSlices to endpoints, as tables."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.discovery.slices import BadSlice, merge, read_slice
from sidecar.traffic.endpoints import MOST
from tests.kit.fake_slices import a_slice

PORTS = {"http": 8080, "mesh": 15006}


def pod(address: str, zone: str | None = None, **conditions: bool | None) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions, "zone": zone}


def listed(*slices: dict[str, Any], port: str = "mesh") -> list[str]:
    return [str(each.address) for each in merge([read_slice(each) for each in slices], port).declared]


@pytest.mark.parametrize(
    ("conditions", "used"),
    [
        ({}, True),  # unknown is to be taken for ready
        ({"ready": None, "serving": None, "terminating": None}, True),
        ({"ready": True}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True}, False),
        ({"ready": True, "serving": True, "terminating": True}, False),  # while a ready one is there
        ({"ready": False, "serving": True, "terminating": True}, False),
    ],
)
def test_who_is_used_beside_a_ready_one(conditions: dict[str, bool | None], used: bool) -> None:
    found = listed(a_slice("a", [pod("10.0.0.1", ready=True), pod("10.0.0.2", **conditions)], PORTS))
    assert ("10.0.0.2:15006" in found) is used


@pytest.mark.parametrize(
    ("conditions", "used"),
    [
        ({"ready": False, "serving": True, "terminating": True}, True),
        ({"ready": True, "terminating": True}, True),
        ({"ready": False, "serving": False, "terminating": True}, False),
        ({"ready": False, "terminating": True}, False),  # serving unset is what ready is
        ({"ready": False, "serving": True}, False),
    ],
)
def test_who_is_used_while_nobody_is_ready(conditions: dict[str, bool | None], used: bool) -> None:
    found = listed(a_slice("a", [pod("10.0.0.1", ready=False), pod("10.0.0.2", **conditions)], PORTS))
    assert found == (["10.0.0.2:15006"] if used else [])


def test_several_slices_are_one_service_and_one_pod_in_two_of_them_is_one() -> None:
    found = listed(a_slice("b", ["10.0.0.2", "10.0.0.1"], PORTS), a_slice("a", ["10.0.0.2", "10.0.0.3"], PORTS))
    assert found == ["10.0.0.1:15006", "10.0.0.2:15006", "10.0.0.3:15006"]


def test_the_order_of_slices_means_nothing() -> None:
    one, other = a_slice("a", ["10.0.0.2"], PORTS), a_slice("b", ["10.0.0.1"], PORTS)
    assert listed(one, other) == listed(other, one)


@pytest.mark.parametrize(
    ("port", "found", "note"),
    [
        ("mesh", "10.0.0.1:15006", ""),
        ("http", "10.0.0.1:8080", ""),
        ("9000", "10.0.0.1:9000", ""),  # a number is taken as it is
        ("mash", None, 'slice a has no TCP port "mash"; did you mean "mesh"?'),
        ("0", None, 'slice a has no TCP port "0"; it has: http, mesh'),
    ],
)
def test_ports(port: str, found: str | None, note: str) -> None:
    merged = merge([read_slice(a_slice("a", ["10.0.0.1"], PORTS))], port)
    assert [str(each.address) for each in merged.declared] == ([found] if found else [])
    assert merged.notes == ((note,) if note else ())


def test_ports_that_are_not_tcp_or_no_ports() -> None:
    document = a_slice("a", ["10.0.0.1"])
    document["ports"] = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "mesh", "port": True}, 7, {}]
    assert listed(document, port="dns") == listed(document) == []
    document["ports"] = None  # all ports
    assert listed(document) == []
    assert listed(document, port="15006") == ["10.0.0.1:15006"]


def test_families() -> None:
    four = a_slice("a", ["10.0.0.1"], PORTS)
    six = a_slice("b", ["fd00::0001"], PORTS, family="IPv6")
    name = a_slice("c", ["Pod.Example.ORG."], PORTS, family="FQDN")
    assert listed(four, six, name) == ["10.0.0.1:15006"]
    assert listed(six, name) == ["[fd00::1]:15006"]
    assert listed(name) == ["pod.example.org:15006"]
    other = merge([read_slice(a_slice("d", ["x"], PORTS, family="Carrier Pigeon"))], "mesh")
    assert other.declared == ()
    assert "'Carrier Pigeon' are none that we know" in other.notes[0]


def test_zones() -> None:
    document = a_slice("a", [pod("10.0.0.1", "eu-1a"), pod("10.0.0.2"), pod("10.0.0.3", "z" * 99)], PORTS)
    assert [each.zone for each in merge([read_slice(document)], "mesh").declared] == ["eu-1a", "", ""]


def test_odd_endpoints_are_left_out_and_named() -> None:
    document = a_slice("a", ["10.0.0.1", "fd00::1", "10.0.0.300", {"addresses": []}, 7, {"addresses": [8]}], PORTS)  # type: ignore[list-item]
    merged = merge([read_slice(document)], "mesh")
    assert [str(each.address) for each in merged.declared] == ["10.0.0.1:15006"]
    assert merged.notes[0] == "slice a: 'fd00::1' is no IPv4 address"
    assert len(merged.notes) == 5


def test_a_bound() -> None:
    slices = [a_slice(f"s{n}", [f"10.{n}.{m // 250}.{m % 250 + 1}" for m in range(1000)], PORTS) for n in range(6)]
    merged = merge([read_slice(each) for each in slices], "mesh")
    assert (len(merged.declared), merged.left_out) == (MOST, 6000 - MOST)


@pytest.mark.parametrize(
    ("document", "why"),
    [(None, "none"), ([], "none"), ({"kind": "Pod"}, "a Pod"), ({}, "without a name"), ({"metadata": 7}, "name")],
)
def test_what_is_no_slice(document: Any, why: str) -> None:
    with pytest.raises(BadSlice, match=why):
        read_slice(document)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70000) | st.sampled_from(["10.0.0.1", "IPv4", "mesh", "TCP", "\x00"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["addresses", "conditions", "ready", "zone", "ports", "port", "name", "metadata"]), inner
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({"endpoints": JSON, "ports": JSON, "addressType": JSON, "metadata": JSON}))
def test_whatever_comes_is_a_slice_or_not(document: Any) -> None:
    try:
        found = read_slice(document)
    except BadSlice:
        return
    merge([found], "mesh")
    merge([found], "15006")
