"""One description, two scripts; and what is refused before any is made."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cli.console import Code
from sidecar.cli.root import run_command
from sidecar.deploy import redirect_iptables, redirect_nft
from sidecar.deploy.redirect_rules import OWN_PORTS, InvalidRedirection, Redirection, parse_networks, parse_ports

NFT = """\
add table inet mesh
delete table inet mesh
table inet mesh {
    chain prerouting {
        type nat hook prerouting priority -110; policy accept;
        meta l4proto != tcp return
        iif "lo" return
        fib daddr type local tcp dport != { 9100, 17001, 17006, 17090, 17443 } redirect to :17006
    }

    chain output {
        type nat hook output priority -110; policy accept;
        meta l4proto != tcp return
        ip daddr 127.0.0.0/8 return
        ip6 daddr ::1 return
        meta skuid 17000 fib daddr type local tcp dport != { 9100, 17001, 17006, 17090, 17443 } redirect to :17006
        meta skuid 17000 return
        fib daddr type local return
        tcp dport { 25, 53 } return
        ip daddr { 10.0.0.0/8 } return
        ip6 daddr { fd00::/8 } return
        meta l4proto tcp redirect to :17001
    }

    chain receive {
        type filter hook input priority 0; policy accept;
        meta l4proto != tcp return
        iif "lo" accept
        ct direction reply accept
        ct status dnat tcp dport 17006 accept
        tcp dport { 9100, 17090, 17443 } accept
        ct state invalid meta l4proto tcp drop
        meta l4proto tcp reject with tcp reset
    }

    chain send {
        type filter hook output priority 0; policy accept;
        meta l4proto != tcp return
        oif "lo" accept
        ip daddr 127.0.0.0/8 accept
        ip6 daddr ::1 accept
        ct direction reply accept
        meta skuid 17000 accept
        tcp dport { 25, 53 } accept
        ip daddr { 10.0.0.0/8 } accept
        ip6 daddr { fd00::/8 } accept
        meta skuid != 17000 reject with tcp reset
    }
}
"""
FILTER6 = """\
*filter
:MESH_RECEIVE - [0:0]
:MESH_SEND - [0:0]
-I INPUT 1 -j MESH_RECEIVE
-I OUTPUT 1 -j MESH_SEND
-A MESH_RECEIVE -i lo -j RETURN
-A MESH_RECEIVE -m conntrack --ctdir REPLY -j RETURN
-A MESH_RECEIVE -p tcp --dport 17006 -m conntrack --ctstate DNAT -j RETURN
-A MESH_RECEIVE -p tcp --dport 9100 -j RETURN
-A MESH_RECEIVE -p tcp --dport 17090 -j RETURN
-A MESH_RECEIVE -p tcp --dport 17443 -j RETURN
-A MESH_RECEIVE -p tcp -m conntrack --ctstate INVALID -j DROP
-A MESH_RECEIVE -p tcp -j REJECT --reject-with tcp-reset
-A MESH_SEND -o lo -j RETURN
-A MESH_SEND -d ::1/128 -j RETURN
-A MESH_SEND -m conntrack --ctdir REPLY -j RETURN
-A MESH_SEND -m owner --uid-owner 17000 -j RETURN
-A MESH_SEND -p tcp --dport 25 -j RETURN
-A MESH_SEND -p tcp --dport 53 -j RETURN
-A MESH_SEND -d fd00::/8 -j RETURN
-A MESH_SEND -p tcp -m owner --socket-exists -j REJECT --reject-with tcp-reset
COMMIT
"""
SOME = Redirection(
    exclude_inbound=(9100,), exclude_outbound=(25,),
    exclude_networks=(ip_network("10.0.0.0/8"), ip_network("10.9.0.0/16"), ip_network("fd00::/8")),
)  # fmt: skip


def test_the_script_of_nft() -> None:
    assert redirect_nft.script(SOME) == NFT


def test_the_script_of_iptables() -> None:
    text = redirect_iptables.script(SOME, 6)
    assert text.startswith(FILTER6)
    assert text.removeprefix(FILTER6).startswith("*nat\n:MESH_PREROUTING - [0:0]\n")
    assert "10.0.0.0" not in text
    assert "fd00" not in redirect_iptables.script(SOME, 4)


def test_listed_ports_and_nothing_of_what_goes_out() -> None:
    listed = Redirection(inbound=(9090, 8080), outbound=False)
    nft, iptables = redirect_nft.script(listed), redirect_iptables.script(listed, 4)
    assert "fib daddr type local tcp dport { 8080, 9090 } redirect to :17006" in nft
    assert "tcp dport { 8080, 9090, 17001, 17006 } reject with tcp reset" in nft
    assert "chain send" not in nft
    assert "redirect to :17001" not in nft
    assert iptables.count("-j REDIRECT --to-ports 17006") == 4
    assert "17443" not in nft + iptables
    assert "MESH_SEND -" not in iptables.replace("MESH_SEND - [0:0]", "")


def test_a_restore_takes_old_jumps_away_first() -> None:
    saved = (
        "*nat\n:PREROUTING ACCEPT [0:0]\n:MESH_PREROUTING - [0:0]\n-A PREROUTING -j ACCEPT\n"
        "-A PREROUTING -j MESH_PREROUTING\n-A PREROUTING -p tcp -j MESH_OLD\nCOMMIT\n"
    )
    nat = redirect_iptables.script(SOME, 4, saved).split("*nat\n")[1]
    assert "-D PREROUTING -j MESH_PREROUTING\n-D PREROUTING -p tcp -j MESH_OLD\n-I PREROUTING 1 -j" in nat
    assert redirect_iptables.removal(saved) == (
        "*nat\n-D PREROUTING -j MESH_PREROUTING\n-D PREROUTING -p tcp -j MESH_OLD\n"
        "-F MESH_PREROUTING\n-X MESH_PREROUTING\nCOMMIT\n"
    )
    assert redirect_iptables.removal("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n") == ""
    assert redirect_iptables.ours(saved).splitlines()[0] == "nat 1 -A PREROUTING -j MESH_PREROUTING"


PORT = st.integers(1, 65535).filter(lambda port: port not in (17001, 17006))
NETWORKS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)).map(lambda n: ip_network(n, strict=False)),
        st.tuples(st.integers(0, 2**128 - 1), st.integers(1, 128)).map(
            lambda n: ip_network((n[0] | 1 << 127, n[1]), strict=False)
        ),
    ),
    max_size=4,
)


@given(st.sets(PORT, max_size=5), st.sets(PORT, max_size=5), NETWORKS, st.integers(1, 2**32 - 2), st.booleans())
def test_the_options_say_all_of_it(
    inside: set[int], out: set[int], networks: list[Any], uid: int, outbound: bool
) -> None:
    what = Redirection(
        uid, exclude_inbound=tuple(inside), exclude_outbound=tuple(out), exclude_networks=tuple(networks),
        outbound=outbound,
    )  # fmt: skip
    words = iter(what.arguments())
    said = {word: next(words) if word != "--inbound-only" else "" for word in words}
    again = Redirection(
        int(said["--uid"]), int(said["--capture-in"]), int(said["--capture-out"]),
        parse_ports(said.get("--inbound", "none")), parse_ports(said["--own-ports"]),
        parse_ports(said.get("--exclude-inbound", "none")), parse_ports(said.get("--exclude-outbound", "none")),
        parse_networks(said["--exclude-cidr"]) if "--exclude-cidr" in said else (),
        "--inbound-only" not in said,
    )  # fmt: skip
    for script in (redirect_nft.script, lambda each: redirect_iptables.script(each, 4)):
        assert script(again) == script(what)
    assert not what.captures(OWN_PORTS[0])
    assert all(what.sentences())


BAD = (  # options, what the answer names
    (["--uid", "0"], "cannot be 0"),
    (["--uid", "-5"], "-5 is no uid"),
    (["--uid", "4294967295"], "is no uid"),
    (["--uid", "mesh"], "not a valid integer"),
    (["--inbound", "80,http"], "'http' is no port"),
    (["--inbound", "80,"], "'' is no port"),
    (["--inbound", "0"], "'0' is no port"),
    (["--inbound", "99999"], "'99999' is no port"),
    (["--inbound", "8000-8100"], "'8000-8100' is no port"),
    (["--inbound", "٨٠"], "is no port"),
    (["--inbound", "17006"], "17006 is where captured connections go"),
    (["--inbound", "8080", "--exclude-inbound", "8080"], "both to be captured and to be left alone"),
    (["--inbound", "17090"], "both to be captured and to be left alone"),
    (["--inbound", ",".join(map(str, range(1, 1100)))], "more than 1000"),
    (["--exclude-inbound", "17001"], "17001 is where captured connections go"),
    (["--exclude-outbound", "-1"], "is no port"),
    (["--own-ports", "17006"], "17006 is where captured connections go"),
    (["--capture-in", "17001"], "cannot capture both directions"),
    (["--capture-in", "0"], "0 is no port"),
    (["--capture-out", "70000"], "70000 is no port"),
    (["--exclude-cidr", "10.1.2.3/8"], "'10.1.2.3/8' is no network"),
    (["--exclude-cidr", "example.org"], "is no network"),
    (["--exclude-cidr", "10.0.0.0/8,"], "'' is no network"),
    (["--exclude-cidr", "0.0.0.0/0"], "nothing that goes out would be captured"),
    (["--exclude-cidr", "10.0.0.0/8,::/0"], "nothing that goes out would be captured"),
    (["--backen", "nft"], "--backen"),
)


@pytest.mark.parametrize(("options", "said"), BAD, ids=[" ".join(options)[:40] for options, _ in BAD])
@pytest.mark.parametrize("verb", ["install", "show", "verify", "hold"])
def test_bad_options(verb: str, options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["redirect", verb, *options]) == Code.USAGE
    assert said in " ".join(re.sub(r"[│╭╰─]", "", capsys.readouterr().err).split())


def test_a_network_with_host_bits_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidRedirection) as raised:
        parse_networks("10.1.2.3/8")
    assert raised.value.advice == "Did you mean 10.0.0.0/8?"


def test_show_says_it_in_plain_words_and_as_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert run_command(["redirect", "show", "--inbound", "8080", "--exclude-cidr", "10.0.0.0/8"]) == Code.OK
    shown = capsys.readouterr().out
    assert "TCP from outside to 8080 arrives at the sidecar, port 17006; other ports as ever." in shown
    assert "Going out past it: port 53; whatever is for 10.0.0.0/8." in shown
    assert "mesh redirect install --uid 17000" in shown
    assert run_command(["redirect", "show", "--backend", "iptables-legacy", "-o", "json"]) == Code.OK
    scripts = json.loads(capsys.readouterr().out)["scripts"]
    assert list(scripts) == ["ip6tables-legacy-restore --noflush", "iptables-legacy-restore --noflush"]
    assert run_command(["redirect", "install", "--dry-run", "--backend", "nft"]) == Code.OK
    assert capsys.readouterr().out.startswith("# nft -f -\nadd table inet mesh\n")
