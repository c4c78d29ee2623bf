"""Which addresses are connected with which: the classes, what is left out, and this machine's own interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_interface
from pathlib import Path

import netifaces
import pytest

from smb3fs.channels.interfaces import OwnAddress, own_addresses
from smb3fs.channels.pairing import MOST_EACH, Choice, Pair, apart, paths, plan
from smb3fs.channels.pairing import Path as Way
from smb3fs.wire.interfaces import NetworkInterface

G = 1_000_000_000
RSS, RDMA = 1, 2


def own(text: str, interface: str, speed: int = 0, *, up: bool = True) -> OwnAddress:
    return OwnAddress(interface, ip_interface(text), speed, up)


def offered(text: str, index: int, speed: int = G, capability: int = RSS) -> NetworkInterface:
    return NetworkInterface(index, capability, speed, ip_address(text))


def pair(source: str | None, target: str) -> Pair:
    return Pair(ip_address(source) if source else None, ip_address(target))


def wanted(ranked: Sequence[Way], most: int, **more: object) -> list[Pair]:
    """The pairs of a plan, in their order."""
    return [path.pair for path in plan(ranked, most, **more).wanted]  # type: ignore[arg-type]


TWO = [own("10.0.1.1/24", "a"), own("10.0.2.1/24", "b")]


def test_each_link_is_used_from_its_own_end() -> None:
    ranked = paths(TWO, [offered("10.0.2.9", 2), offered("10.0.1.9", 1)])
    assert {path.pair for path in ranked} == {pair("10.0.1.1", "10.0.1.9"), pair("10.0.2.1", "10.0.2.9")}
    assert set(wanted(ranked, 2)) == {path.pair for path in ranked}


@pytest.mark.parametrize(
    "better",
    [
        offered("10.0.2.9", 2, 10 * G),
        # An interface that scales is better than a faster one that does not.
        offered("10.0.2.9", 2, G // 10),
    ],
    ids=["faster", "scales"],
)
def test_only_the_best_class_is_used(better: NetworkInterface) -> None:
    worse = offered("10.0.1.9", 1, G, RSS if better.speed > G else 0)
    ranked = paths(TWO, [worse, better])
    assert [path.pair.target for path in ranked] == [better.address, worse.address]
    assert [path.pair.target for path in plan(ranked, 8).used] == [better.address]
    # One of the others stands by, before further connections of the best.
    assert wanted(ranked, 8) == [path.pair for path in (ranked[0], ranked[1], *ranked[:1] * (MOST_EACH - 1))]
    assert wanted(ranked, 1) == [ranked[0].pair]


THREE = [own("10.0.1.1/24", "a"), own("10.0.2.1/24", "b"), own("10.0.3.1/24", "c")]


def test_where_none_of_the_best_can_be_connected_the_next_class_is_used_and_they_are_tried_all_the_same() -> None:
    told = [offered("10.0.1.9", 1, 10 * G, 0), offered("10.0.2.9", 2, G, 0), offered("10.0.3.9", 3, G, 0)]
    best, *others = paths(THREE, told)
    made = plan([best, *others], 2, hopeless=[best.pair])
    assert (made.used, made.wanted, made.better) == (others, others, [best])
    made = plan([best, *others], 3, hopeless=[others[0].pair])
    assert (made.used, made.wanted, made.better) == ([best], [best, others[1]], [])
    # Nothing is known to be better than anything else then.
    made = plan([best, *others], 4, hopeless=[path.pair for path in (best, *others)])
    assert (made.used, made.wanted, made.better) == ([best], [best], [])
    assert plan([], 4).wanted == ()


def test_if_classes_may_be_mixed_all_of_them_are_used() -> None:
    ranked = paths(THREE, [offered("10.0.1.9", 1, G, 0), offered("10.0.2.9", 2, 3 * G), offered("10.0.3.9", 3)])
    made = plan(ranked, 3, mixed=True)
    assert (made.used, made.wanted, made.better) == (ranked, ranked, [])


@pytest.mark.parametrize(
    ("choice", "interfaces"),
    [
        (Choice(), ["a", "b", "c"]),
        (Choice(interfaces=("b",)), ["b"]),
        (Choice(interfaces=("[ab]", "x*")), ["a", "b"]),
        (Choice(excluded=("c", "a?")), ["a", "b"]),
        (Choice(interfaces=("a", "b"), excluded=("b",)), ["a"]),
        (Choice(ip_address("10.0.3.1")), ["c"]),
        (Choice(ip_address("10.0.3.1"), excluded=("c",)), []),
        (Choice(interfaces=("A",)), []),
    ],
    ids=str,
)
def test_interfaces_are_chosen_by_name_or_address(choice: Choice, interfaces: list[str]) -> None:
    told = [offered("10.0.1.9", 1), offered("10.0.2.9", 2), offered("10.0.3.9", 3)]
    assert sorted(path.interface for path in paths(THREE, told, choice)) == interfaces


def test_interfaces_chosen_by_name_are_gone_by_also_where_the_server_is_not_near() -> None:
    (path,) = paths(THREE, [offered("192.0.2.9", 1)], Choice(interfaces=("b",)))
    assert (path.pair, path.near) == (pair("10.0.2.1", "192.0.2.9"), False)


def test_the_slower_end_of_a_link_is_its_speed() -> None:
    mine = [own("10.0.1.1/24", "a", 10 * G), own("10.0.2.1/24", "b", G // 10)]
    ranked = paths(mine, [offered("10.0.1.9", 1, G), offered("10.0.2.9", 2, G)])
    assert [path.speed for path in ranked] == [G, G // 10]


def test_an_unknown_speed_is_a_usual_one() -> None:
    assert [path.speed for path in paths(TWO, [offered("10.0.1.9", 1, 0)])] == [G]


def test_an_interface_takes_several_connections_if_it_scales_and_after_all_others_have_one() -> None:
    ranked = paths(TWO, [offered("10.0.1.9", 1), offered("10.0.2.9", 2)])
    pairs = wanted(ranked, 16)
    assert len(pairs) == 2 * MOST_EACH
    assert len(set(pairs[:2])) == len(set(pairs[2:4])) == 2
    assert len(wanted(ranked, 3)) == 3
    plain = paths(TWO, [offered("10.0.1.9", 1, capability=0), offered("10.0.2.9", 2, capability=0)])
    assert len(wanted(plain, 16)) == 2


def test_several_addresses_of_one_interface_are_one_way() -> None:
    mine = [*TWO, own("fd00::1/64", "a")]
    told = [offered("10.0.1.9", 1), offered("fd00::9", 1), offered("10.0.1.10", 1), offered("10.0.1.9", 1, 0, RDMA)]
    assert len(paths(mine, told)) == 1


def test_an_address_that_is_listed_twice_is_what_it_is_at_its_best() -> None:
    (path,) = paths(TWO, [offered("10.0.1.9", 4, G, RDMA), offered("10.0.1.9", 4, 2 * G, RSS)])
    assert (path.rss, path.speed) == (True, 2 * G)


def test_one_end_of_ours_may_reach_several_of_theirs_and_they_share_ours_evenly() -> None:
    mine = [own("10.0.1.1/16", "a"), own("10.0.1.2/16", "b")]
    ranked = paths(mine, [offered("10.0.1.9", 1), offered("10.0.1.10", 2)])
    assert {path.interface for path in ranked} == {"a", "b"}


def test_what_has_an_interface_in_common_is_no_second_way() -> None:
    # Two links, each with an address of its own at both ends.
    told = [offered("10.0.1.9", 1), offered("10.0.2.9", 2)]
    ranked = apart(paths(TWO, told), [1])
    assert [path.server_index for path in ranked] == [1, 2]
    assert wanted(ranked, 4, each=1) == [path.pair for path in ranked]
    # Two of the server's by one of ours: the one that is used already, wherever it stands.
    near = [offered("10.0.1.8", 8), offered("10.0.1.9", 9)]
    for there in (8, 9):
        assert [path.server_index for path in apart(paths(TWO[:1], near), [there])] == [there]
    # Unless another one is better.
    better = [near[0], offered("10.0.1.9", 9, 10 * G)]
    assert [path.server_index for path in apart(paths(TWO[:1], better), [8])] == [9]
    # Two of ours to one of the server's; and where routers are between, nobody knows.
    assert len(apart(paths([own("10.0.1.1/24", "a"), own("10.0.1.2/24", "b")], near[:1]), [])) == 1
    assert apart(paths(TWO, [offered("192.0.2.1", 1), offered("198.51.100.1", 2)]), [1]) == []


def test_elsewhere_the_kernel_finds_the_way() -> None:
    ranked = paths(TWO, [offered("192.0.2.9", 1), offered("10.0.1.9", 2)])
    assert [path.pair for path in ranked] == [pair("10.0.1.1", "10.0.1.9"), pair(None, "192.0.2.9")]


@pytest.mark.parametrize("text", ["fe80::1", "169.254.1.1", "127.0.0.1", "::1", "224.0.0.1", "0.0.0.0", "fd00::9"])
def test_what_cannot_be_connected_to_is_left_out(text: str) -> None:
    assert paths(TWO, [offered(text, 1)]) == []


def test_links_that_are_down_and_other_sources_than_the_chosen_one_are_left_out() -> None:
    mine = [own("10.0.1.1/24", "a", up=False), own("10.0.2.1/24", "b"), own("10.0.2.2/24", "c")]
    told = [offered("10.0.2.9", 2)]
    assert [path.pair.source for path in paths(mine, told, Choice(ip_address("10.0.2.2")))] == [ip_address("10.0.2.2")]
    assert paths(mine[:1], told) == []


def test_the_interfaces_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "a": {2: [{"addr": "10.0.1.1", "netmask": "255.255.255.0"}], 17: [{"addr": "00:00:00:00:00:00"}]},
        "b": {10: [{"addr": "fe80::1%b", "netmask": "ffff:ffff:ffff:ffff::/64"}, {"addr": "nonsense"}]},
    }

    def addresses(name: str) -> object:
        if name not in told:
            raise ValueError("You must specify a valid interface name.")
        return told[name]

    monkeypatch.setattr(netifaces, "interfaces", lambda: ["a", "b", "gone"])
    monkeypatch.setattr(netifaces, "ifaddresses", addresses)
    for name, speed, state in (("a", "2500\n", "up\n"), ("b", "-1\n", "down\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "speed").write_text(speed)
        (tmp_path / name / "operstate").write_text(state)
    assert own_addresses(tmp_path) == [own("10.0.1.1/24", "a", 2_500_000_000), own("fe80::1/64", "b", 0, up=False)]


def test_the_real_ones_have_the_loopback_among_them() -> None:
    assert ip_interface("127.0.0.1/8") in [one.network for one in own_addresses()]
