"""base + delta: each rule for delta hives (docs/format.md), nested; the real delta; and a plain dictionary model."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterable
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimfs_ext.errors import CorruptHiveError
from cimfs_ext.regf import Hive
from support import hives
from support.hives import (
    INHERIT_CLASS,
    MERGE,
    REG_SZ,
    SUPERSEDE_LOCAL,
    SUPERSEDE_TREE,
    TOMBSTONE,
    Node,
    Val,
    build,
    corpus,
)
from support.platforms import examples, posix_only, same_everywhere

OLD, NEW = b"\1\0\4\x80" + b"\1" * 16, b"\1\0\4\x80" + b"\2" * 16


def merged(base: Node, delta: Node) -> Hive:
    """Base + delta after a round trip through the writer."""
    hive = Hive.open(build(base))
    hive.merge(Hive.open(build(delta, minor=6, layered=True)))
    return Hive.open(hive.to_bytes())


def contents(hive: Hive) -> dict[str, dict[str, bytes]]:
    return {key.path: {value.name: value.data for value in key.values()} for key in hive.walk()}


def values(**named: str) -> list[Val]:
    return [Val(name, REG_SZ, data.encode()) for name, data in named.items()]


def under(*subkeys: Node) -> Node:
    """The subkeys in a key two levels below the root, so that each row is tested nested."""
    return Node(subkeys=[Node("Top", subkeys=[Node("Mid", subkeys=list(subkeys))])])


def below(hive: Hive) -> dict[str, dict[str, bytes]]:
    prefix = "Top\\Mid\\"
    return {path[len(prefix) :]: found for path, found in contents(hive).items() if path.startswith(prefix)}


BASE = under(Node("Key", values(a="1", B="2"), [Node("Sub", values(s="3"), [Node("Leaf")]), Node("Other")]))

# Delta below Top\Mid, and what is there afterwards.
ROWS = {
    "tombstone key drops the subtree": ([Node("KEY", layering=TOMBSTONE)], {}),
    "tombstone below a key": (
        [Node("Key", subkeys=[Node("sub", layering=TOMBSTONE)])],
        {"Key": {"a": b"1", "B": b"2"}, "Key\\Other": {}},
    ),
    "tombstone with content is still one": (
        [Node("Key", values(x="9"), [Node("y")], layering=TOMBSTONE)],
        {},
    ),
    "tombstone of what the base has not": (
        [Node("Nothing", layering=TOMBSTONE, subkeys=[Node("x")]), Node("Key", layering=TOMBSTONE)],
        {},
    ),
    "merge of values": (
        [Node("kEY", [Val("b", 7, b"new"), Val("C", 1, b"added"), Val("A", tombstone=True)])],
        {
            "Key": {"B": b"new", "C": b"added"},
            "Key\\Other": {},
            "Key\\Sub": {"s": b"3"},
            "Key\\Sub\\Leaf": {},
        },
    ),
    "merge of subkeys": (
        [Node("Key", subkeys=[Node("Sub", values(t="4"), [Node("leaf", values(l="5"))]), Node("Third")])],
        {
            "Key": {"a": b"1", "B": b"2"},
            "Key\\Other": {},
            "Key\\Sub": {"s": b"3", "t": b"4"},
            "Key\\Sub\\Leaf": {"l": b"5"},
            "Key\\Third": {},
        },
    ),
    "supersede local replaces values and merges subkeys": (
        [
            Node(
                "Key",
                [*values(c="only"), Val("d", tombstone=True)],
                [Node("Sub", values(t="4")), Node("other", layering=TOMBSTONE)],
                layering=SUPERSEDE_LOCAL,
            )
        ],
        {"Key": {"c": b"only"}, "Key\\Sub": {"s": b"3", "t": b"4"}, "Key\\Sub\\Leaf": {}},
    ),
    "supersede tree replaces all": (
        [
            Node(
                "Key",
                [*values(c="only"), Val("d", tombstone=True)],
                [Node("Sub"), Node("gone", layering=TOMBSTONE)],
                layering=SUPERSEDE_TREE,
            )
        ],
        {"Key": {"c": b"only"}, "Key\\Sub": {}},
    ),
    **{
        f"new key of semantics {semantics} comes without tombstones": (
            [
                Node("Key", layering=TOMBSTONE),
                Node(
                    "New",
                    [*values(v="1"), Val("w", tombstone=True)],
                    [
                        Node("Dead", layering=TOMBSTONE),
                        Node("Live", [Val("x", tombstone=True)], layering=semantics),
                    ],
                    layering=semantics,
                ),
            ],
            {"New": {"v": b"1"}, "New\\Live": {}},
        )
        for semantics in (MERGE, SUPERSEDE_LOCAL, SUPERSEDE_TREE)
    },
    "tombstone value of what the base has not": (
        [Node("Key", [Val("nothing", tombstone=True)], [Node("Sub", layering=TOMBSTONE)])],
        {"Key": {"a": b"1", "B": b"2"}, "Key\\Other": {}},
    ),
}


@pytest.mark.parametrize(("delta", "expected"), ROWS.values(), ids=ROWS)
def test_row(delta: list[Node], expected: dict[str, dict[str, bytes]]) -> None:
    result = merged(BASE, under(*delta))
    assert below(result) == expected
    assert [key.layering for key in result.walk()] == [0] * len(contents(result))
    assert not any(value.tombstone for key in result.walk() for value in key.values())
    assert not result.layered
    assert result.minor_version == 5


@pytest.mark.parametrize("semantics", [MERGE, SUPERSEDE_LOCAL, SUPERSEDE_TREE])
def test_class_is_the_deltas_unless_inherited(semantics: int) -> None:
    base = under(Node("Old", class_name="base"), Node("Kept", class_name="base"), Node("Bare"))
    delta = under(
        Node("Old", class_name="delta", layering=semantics),
        Node("Kept", class_name="ignored", layering=semantics | INHERIT_CLASS),
        Node("Bare", layering=semantics | INHERIT_CLASS),
        Node("New", class_name="own", layering=semantics),
    )
    result = merged(base, delta)
    names = {key.name: key.class_name for key in result.key("Top\\Mid").subkeys()}
    assert names == {"Old": "delta", "Kept": "base", "Bare": "", "New": "own"}


@pytest.mark.parametrize(("base_time", "delta_time"), [(5, 9), (9, 5)])
def test_security_is_the_deltas_time_the_later_name_the_bases(base_time: int, delta_time: int) -> None:
    base = under(Node("KeY", security=OLD, timestamp=base_time), Node("Untouched", security=OLD, timestamp=3))
    delta = under(Node("kEy", security=NEW, timestamp=delta_time), Node("New", security=NEW, timestamp=1))
    result = merged(base, delta)
    found = {key.name: (key.security, key.timestamp) for key in result.key("Top\\Mid").subkeys()}
    assert found == {"KeY": (NEW, 9), "Untouched": (OLD, 3), "New": (NEW, 1)}


def test_root_keeps_the_bases_name_and_merges_like_any_key() -> None:
    base, delta = (
        Node("BASEROOT", values(a="1"), [Node("x")]),
        Node("Delta", values(a="2", b="3"), [Node("y")]),
    )
    result = merged(base, delta)
    assert result.root.name == "BASEROOT"
    assert contents(result) == {"": {"a": b"2", "b": b"3"}, "x": {}, "y": {}}
    delta.layering = SUPERSEDE_TREE
    assert contents(merged(base, delta)) == {"": {"a": b"2", "b": b"3"}, "y": {}}


def test_tombstone_root_is_refused() -> None:
    base = Hive.open(build(BASE))
    with pytest.raises(CorruptHiveError, match="Sam_Delta: the root key of a delta is a tombstone"):
        base.merge(Hive.open(build(Node(layering=TOMBSTONE), layered=True), name="Sam_Delta"))
    assert contents(base) == contents(Hive.open(build(BASE)))


def test_empty_delta_changes_no_key_or_value() -> None:
    base = Hive.open(corpus("SOFTWARE_26100"))
    before = contents(base)
    base.merge(Hive.open(corpus("EmptyHive")))
    assert contents(base) == before


def test_layered_base_becomes_plain() -> None:
    base = Node(subkeys=[Node("Dead", layering=TOMBSTONE), Node("Live", [Val("x", tombstone=True)], layering=0x83)])
    hive = Hive.open(build(base, minor=6, layered=True))
    hive.merge(Hive.open(build(Node())))
    result = Hive.open(hive.to_bytes())
    assert contents(result) == {"": {}, "Live": {}}
    assert result.key("Live").layering == 0


def test_delta_stays_as_it_is_and_can_go_away() -> None:
    base = Hive.open(build(BASE))
    delta = Hive.open(build(under(Node("Key", values(a="x" * 20000)), Node("N")), layered=True))
    before = delta.to_bytes()
    base.merge(delta)
    base.set_value("Top\\Mid\\N", "v", REG_SZ, b"1")
    assert delta.to_bytes() == before
    expected = base.to_bytes()
    del delta
    assert base.to_bytes() == expected
    with pytest.raises(ValueError, match="itself"):
        base.merge(base)


def test_many_values_are_matched_by_name() -> None:
    base = Node(values=[Val(f"v{i}", 3, b"%d" % i) for i in range(1000)])
    delta = Node(
        values=[Val(f"V{i}", 3, b"new", tombstone=i % 3 == 0) for i in range(0, 1000, 2)] + [Val("extra", 3, b"+")]
    )
    expected = {f"v{i}": b"new" if i % 2 == 0 else b"%d" % i for i in range(1000) if i % 2 or i % 3}
    assert contents(merged(base, delta))[""] == {**expected, "extra": b"+"}


def test_order_of_values_stays_and_new_ones_follow() -> None:
    base = Node(values=values(z="1", a="2", m="3"))
    delta = Node(values=[*values(y="4", A="5"), Val("z", tombstone=True), *values(b="6")])
    assert list(contents(merged(base, delta))[""]) == ["a", "m", "y", "b"]


def model_merge(base: Node, delta: Node) -> Node:
    """The rules once more, on plain nodes."""
    semantics = delta.layering & 3
    result = Node(base.name, class_name=base.class_name if delta.layering & INHERIT_CLASS else delta.class_name)
    result.security, result.timestamp = delta.security, max(base.timestamp, delta.timestamp)
    found = {value.name.upper(): value for value in base.values} if semantics == MERGE else {}
    for value in delta.values:
        found.pop(value.name.upper(), None) if value.tombstone else found.update({value.name.upper(): value})
    result.values = list(found.values())
    children = {} if semantics == SUPERSEDE_TREE else {child.name.upper(): child for child in base.subkeys}
    for child in delta.subkeys:
        name = child.name.upper()
        if child.layering & 3 == TOMBSTONE:
            children.pop(name, None)
        elif name in children:
            children[name] = model_merge(children[name], child)
        else:
            children[name] = plain(child)
    result.subkeys = list(children.values())
    return result


def plain(node: Node) -> Node:
    result = deepcopy(node)
    result.values = [value for value in node.values if not value.tombstone]
    result.subkeys = [plain(child) for child in node.subkeys if child.layering & 3 != TOMBSTONE]
    return result


def facts(node: Node, path: str = "") -> dict[str, tuple[object, ...]]:
    found = {path: (node.class_name, node.timestamp, node.security, {v.name.upper(): v.data for v in node.values})}
    for child in node.subkeys:
        found |= facts(child, f"{path}\\{child.name}".upper())
    return found


def facts_of(hive: Hive) -> dict[str, tuple[object, ...]]:
    return {
        f"\\{key.path}".upper() if key.path else "": (
            key.class_name,
            key.timestamp,
            key.security,
            {value.name.upper(): value.data for value in key.values()},
        )
        for key in hive.walk()
    }


def unique(items: Iterable[Node | Val]) -> list:
    return list({item.name.upper(): item for item in items}.values())


NAMES = st.sampled_from(["a", "A", "b", "B", "é", "É", "Ж", "ж", "_", "aa", "AB"])


def nodes(layered: bool) -> st.SearchStrategy[Node]:
    vals = st.lists(
        st.builds(Val, NAMES, st.just(3), st.binary(max_size=6), st.booleans() if layered else st.just(False))
    )
    common = {
        "values": vals.map(unique),
        "class_name": st.sampled_from(["", "one", "two"]),
        "timestamp": st.integers(0, 9),
        "security": st.sampled_from([OLD, NEW]),
        "layering": st.sampled_from([0, 0, 0x80, 1, 2, 0x82, 3, 0x83]) if layered else st.just(0),
    }
    leaf = st.builds(Node, NAMES, **common)

    def branch(child: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        return st.builds(Node, NAMES, subkeys=st.lists(child, max_size=5).map(unique), **common)

    return st.recursive(leaf, branch, max_leaves=12)


@settings(max_examples=examples(300), deadline=None)
@given(nodes(layered=False), nodes(layered=True).filter(lambda node: node.layering & 3 != TOMBSTONE))
@same_everywhere
def test_merge_does_what_the_model_does(base: Node, delta: Node) -> None:
    result = merged(base, delta)
    assert facts_of(result) == facts(model_merge(base, delta))
    assert result.root.name == base.name


def node_of(hive: Hive, path: str = "") -> Node:
    """A corpus hive as the model's node."""
    key = hive.key(path)
    return Node(
        key.name,
        [Val(*value) for value in key.values()],
        [node_of(hive, child.path) for child in key.subkeys()],
        key.class_name,
        key.timestamp,
        key.security,
        key.layering,
    )


@same_everywhere
def test_real_delta_onto_a_real_system_hive() -> None:
    raw = bytearray(corpus("SYSTEM_WIN_10_1709"))
    struct.pack_into("<I", raw, 8, struct.unpack_from("<I", raw, 4)[0])
    base, delta = Hive.open(hives.with_checksum(raw)), Hive.open(corpus("System_Delta"))
    expected = model_merge(node_of(base), node_of(delta))
    base.merge(delta)
    written = base.to_bytes()
    assert facts_of(Hive.open(written)) == facts(expected)


CHAIN = ("System_Delta", "UnicodeHive", "BigDataHive", "ExtendedASCIIHive", "EmptyHive")


def test_deltas_in_a_chain_are_read_by_all_readers() -> None:
    hive = Hive.open(corpus("SOFTWARE_26100"))
    for name in CHAIN:
        hive.merge(Hive.open(corpus(name)))
        hive = Hive.open(hive.to_bytes())
    data, tree = hive.to_bytes(), hives.our_tree(hive)
    assert hives.dissect_tree(data) == tree
    assert len(hives.regipy_keys(data)) == len(tree)
    assert len(hives.hivexsh(data, tree).splitlines()) > len(tree)


MEASURE = """
import resource, sys
from cimfs_ext.regf import Hive
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
hive = Hive.open(sys.argv[1])
hive.merge(Hive.open(sys.argv[2]))
hive.to_bytes()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@posix_only("memory is measured with getrusage")
def test_memory_of_a_merge_is_less_than_four_times_the_hive(tmp_path) -> None:
    hive = Hive.empty(0)
    for i in range(20000):
        for j in range(5):
            hive.set_value(f"Software\\Vendor{i % 400}\\Product{i}", f"Value {j}", REG_SZ, b"x" * (40 * j))
    base, delta = tmp_path / "base", tmp_path / "delta"
    base.write_bytes(hive.to_bytes())
    delta.write_bytes(corpus("System_Delta"))
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, base, delta], capture_output=True, encoding="utf-8", check=True
    )
    assert int(run.stdout) * 1024 < 4 * base.stat().st_size
