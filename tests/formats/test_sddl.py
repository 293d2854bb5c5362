"""SDDL text to self-relative descriptors and back."""

import contextlib
import json
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimlayer.errors import FormatError
from cimlayer.formats.sddl import ALIASES, DOMAIN_ALIASES, descriptor_from_sddl, sddl_from_descriptor
from support.commands import cpu_time_below
from support.descriptors import Acl, Parts, parts_of
from support.platforms import same_everywhere
from support.shared import SHARED_LAYERS, needs_layers

SYSTEM = bytes.fromhex("010100000000000512000000")
EVERYONE = bytes.fromhex("010100000000000100000000")
ADMINISTRATORS = bytes.fromhex("01020000000000052000000020020000")
HIGH_LABEL = bytes.fromhex("010100000000001000300000")
USER_CLASS = "bf967aba-0de6-11d0-a285-00aa003049e2"
USER_CLASS_BYTES = bytes.fromhex("ba7a96bfe60dd011a28500aa003049e2")


def ace(kind: int, flags: int, mask: int, rest: bytes) -> bytes:
    return struct.pack("<BBHI", kind, flags, 8 + len(rest), mask) + rest


def only_ace(text: str) -> bytes:
    dacl = parts_of(descriptor_from_sddl(text)).dacl
    assert dacl is not None
    (found,) = dacl.aces
    return found


def corpus_pairs() -> Iterator[tuple[str, bytes]]:
    for manifest in sorted(SHARED_LAYERS.glob("*.manifest.json")):
        content = json.loads(manifest.read_text("utf-8"))
        for entry in content["entries"] + content.get("managed_entries", []):
            if "sddl" in entry:
                yield entry["sddl"], bytes.fromhex(entry["sd"])


def corpus_descriptors() -> Iterator[bytes]:
    for manifest in sorted(SHARED_LAYERS.glob("*.manifest.json")):
        yield from (bytes.fromhex(entry["sd"]) for entry in json.loads(manifest.read_text("utf-8"))["entries"])


@needs_layers
def test_sddl_of_the_corpus_means_its_descriptors() -> None:
    pairs = set(corpus_pairs())
    assert pairs
    for text, descriptor in pairs:
        assert parts_of(descriptor_from_sddl(text)) == parts_of(descriptor), text[:200]


@needs_layers
def test_descriptors_of_the_corpus_survive_their_text() -> None:
    descriptors = set(corpus_descriptors())
    assert descriptors
    for descriptor in descriptors:
        assert parts_of(descriptor_from_sddl(sddl_from_descriptor(descriptor))) == parts_of(descriptor)


@pytest.mark.parametrize(
    ("text", "control"),
    [
        ("", 0x8000),
        ("O:BA", 0x8000),
        ("D:", 0x8004),
        ("D:P", 0x9004),
        ("D:AI", 0x8404),
        ("D:AR", 0x8104),
        ("D:ARAIP", 0x9504),
        ("S:", 0x8010),
        ("S:P", 0xA010),
        ("S:AIAR", 0x8A10),
        ("D:PS:AI", 0x9814),
        ("D:PNO_ACCESS_CONTROL", 0x9004),
    ],
)
def test_control_bits_follow_the_lists(text: str, control: int) -> None:
    assert parts_of(descriptor_from_sddl(text)).control == control


def test_null_empty_and_absent_list_are_three_things() -> None:
    null = parts_of(descriptor_from_sddl("D:NO_ACCESS_CONTROL"))
    empty = parts_of(descriptor_from_sddl("D:"))
    absent = parts_of(descriptor_from_sddl("O:SY"))
    assert (null.control, null.dacl) == (0x8004, None)
    assert (empty.control, empty.dacl) == (0x8004, Acl(2, ()))
    assert (absent.control, absent.dacl) == (0x8000, None)
    assert sddl_from_descriptor(bytes.fromhex("01000480" + "00" * 16)) == "D:NO_ACCESS_CONTROL"


def test_parts_come_in_any_order() -> None:
    one = descriptor_from_sddl("O:SYG:BAD:P(A;;FA;;;WD)S:(ML;;NW;;;HI)")
    other = descriptor_from_sddl("S:(ML;;NW;;;HI)D:P(A;;FA;;;WD)G:BAO:SY")
    assert one == other
    assert parts_of(one) == Parts(
        0x9014,
        SYSTEM,
        ADMINISTRATORS,
        Acl(2, (ace(0x11, 0, 1, HIGH_LABEL),)),
        Acl(2, (ace(0, 0, 0x1F01FF, EVERYONE),)),
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [("A", 0x00), ("D", 0x01), ("AU", 0x02), ("ML", 0x11), ("SP", 0x13), ("TL", 0x14)],
)
def test_plain_ace_has_mask_and_sid(text: str, kind: int) -> None:
    assert only_ace(f"D:({text};OICI;0x7;;;SY)") == ace(kind, 3, 7, SYSTEM)


@pytest.mark.parametrize(("text", "kind"), [("OA", 0x05), ("OD", 0x06), ("OU", 0x07)])
def test_object_ace_has_the_guids_that_are_given(text: str, kind: int) -> None:
    guid = USER_CLASS_BYTES
    other = bytes(range(16))
    other_text = "03020100-0504-0706-0809-0a0b0c0d0e0f"
    for fields, present, guids in (
        (f"{USER_CLASS};", 1, guid),
        (f";{other_text.upper()}", 2, other),
        (f"{USER_CLASS};{other_text}", 3, guid + other),
    ):
        descriptor = descriptor_from_sddl(f"D:({text};;CC;{fields};SY)")
        dacl = parts_of(descriptor).dacl
        assert dacl == Acl(4, (ace(kind, 0, 1, struct.pack("<I", present) + guids + SYSTEM),))


def test_object_allow_ace_without_guids_becomes_a_plain_one() -> None:
    assert only_ace("D:(OA;;CC;;;SY)") == ace(0, 0, 1, SYSTEM)


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("", 0),
        ("0", 0),
        ("0x0", 0),
        ("0x1200a9", 0x1200A9),
        ("0X1200A9", 0x1200A9),
        ("1179817", 0x1200A9),
        ("04400251", 0x1200A9),
        ("0xffffffff", 0xFFFFFFFF),
        ("4294967295", 0xFFFFFFFF),
        ("037777777777", 0xFFFFFFFF),
        ("FA", 0x1F01FF),
        ("FRFW", 0x12019F),
        ("FX", 0x1200A0),
        ("GAGRGWGX", 0xF0000000),
        ("RCSDWDWO", 0xF0000),
        ("CCDCLCSWRPWPDTLOCR", 0x1FF),
        ("KAKRKWKX", 0xF003F),
        ("NWNRNX", 7),
        ("RPWPCCDCLCSWRCWDWOGA", 0x100E003F),
    ],
)
def test_rights_are_letters_or_a_number(text: str, mask: int) -> None:
    assert only_ace(f"D:(A;;{text};;;SY)") == ace(0, 0, mask, SYSTEM)


@pytest.mark.parametrize(
    ("text", "flags"),
    [("", 0), ("OI", 1), ("CI", 2), ("NP", 4), ("IO", 8), ("ID", 16), ("CR", 32), ("SA", 64), ("FA", 128)],
)
def test_ace_flags_have_their_bits(text: str, flags: int) -> None:
    assert only_ace(f"D:(A;{text};FA;;;SY)")[1] == flags


@pytest.mark.parametrize(
    ("text", "sid"),
    [
        ("S-1-0-0", "010100000000000000000000"),
        ("S-1-5-18", SYSTEM.hex()),
        ("S-1-5-32-544", ADMINISTRATORS.hex()),
        ("S-1-4294967295-1", "01010000ffffffff01000000"),
        ("S-1-0x0123456789AB-4294967295", "01010123456789abffffffff"),
        ("S-1-5" + "-7" * 15, "010f000000000005" + "07000000" * 15),
        ("S-1-16", "0100000000000010"),
    ],
)
def test_sid_is_packed_and_shown(text: str, sid: str) -> None:
    descriptor = descriptor_from_sddl("O:" + text)
    assert parts_of(descriptor).owner == bytes.fromhex(sid)
    assert descriptor_from_sddl(sddl_from_descriptor(descriptor)) == descriptor


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_alias_stands_for_its_sid(alias: str) -> None:
    assert descriptor_from_sddl(f"O:{alias}") == descriptor_from_sddl(f"O:{ALIASES[alias]}")
    assert sddl_from_descriptor(descriptor_from_sddl(f"O:{ALIASES[alias]}")) == f"O:{alias}"


@pytest.mark.parametrize("alias", sorted(DOMAIN_ALIASES))
def test_alias_of_a_domain_is_refused(alias: str) -> None:
    with pytest.raises(FormatError, match=f"alias {alias} needs a domain SID") as caught:
        descriptor_from_sddl(f"G:{alias}")
    assert caught.value.offset == 2


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("X:BA", 0, "O:, G:, D: or S: expected"),
        ("O:BAX", 4, "O:, G:, D: or S: expected"),
        ("O:BA ", 4, "O:, G:, D: or S: expected"),
        ("O:BA\0", 4, "O:, G:, D: or S: expected"),
        ("O:", 2, "SID"),
        ("O:ba", 2, "SID"),
        ("O:ZZ", 2, "SID"),
        ("O:S-2-5-18", 2, "SID"),
        ("O:S-1-5-", 7, "O:, G:, D: or S: expected"),
        ("O:S-1-5-4294967296", 2, "more than 32 bits"),
        ("O:S-1-5" + "-1" * 16, 2, "15 sub-authorities"),
        ("O:S-1-٣-1", 2, "SID"),
        ("O:BAO:BA", 4, "a second O:"),
        ("D:D:", 2, "a second D:"),
        ("D:PX(A;;FA;;;SY)", 3, "expected"),
        ("D:AX", 2, "expected"),
        ("D:NO_ACCESS_CONTROL(A;;FA;;;SY)", 19, "expected"),
        ("D:(", 3, "unknown type of ace"),
        ("D:()", 3, "unknown type of ace"),
        ("D:(Q;;FA;;;SY)", 3, "unknown type of ace"),
        ("D:(XA;;FA;;;SY;(Member_of SID(BA)))", 3, "conditional aces are not supported"),
        ("D:(XD;;FA;;;SY;(1==1))", 3, "conditional aces are not supported"),
        ("S:(XU;;FA;;;SY;(1==1))", 3, "conditional aces are not supported"),
        ("D:(ZA;;FA;;;SY;(1==1))", 3, "conditional aces are not supported"),
        ('S:(RA;;;;;WD;("a",TI,0,1))', 3, "resource attribute aces are not supported"),
        ("S:(AL;;FA;;;SY)", 3, "alarm aces are not supported"),
        ("D:(A;;FA;;;SY;(1==1))", 13, "a condition"),
        ("D:(A;;FA;;;SY", 13, "'\\)' expected"),
        ("D:(A", 4, "';' expected"),
        ("D:(A;O", 5, "ace flag"),
        ("D:(A;XX;FA;;;SY)", 5, "ace flag"),
        ("D:(A;;ZZ;;;SY)", 6, "access right"),
        ("D:(A;;F;;;SY)", 6, "access right"),
        ("D:(A;;FA", 8, "access right"),
        ("D:(A;;4294967296;;;SY)", 6, "more than 32 bits"),
        ("D:(A;;040000000000;;;SY)", 6, "more than 32 bits"),
        ("D:(A;;0x100000000;;;SY)", 16, "';' expected"),
        ("D:(A;;09;;;SY)", 7, "';' expected"),
        ("D:(A;;-1;;;SY)", 6, "access right"),
        ("D:(OA;;CC;no-guid;;SY)", 10, "GUID expected"),
        (f"D:(A;;CC;{USER_CLASS};;SY)", 9, "no object GUIDs"),
        ("D:(A;;FA;;;)", 11, "SID"),
        ("D:(A;;FA;;SY)", 10, "GUID expected"),
    ],
)
def test_bad_text_is_refused_with_its_position(text: str, offset: int, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        descriptor_from_sddl(text)
    assert caught.value.offset == offset
    assert caught.value.what == "SDDL"


def test_list_that_outgrows_its_size_field_is_refused() -> None:
    fits = 3276  # of 20 bytes each, after a header of 8
    assert parts_of(descriptor_from_sddl("D:" + "(A;;FA;;;SY)" * fits)).dacl is not None
    with pytest.raises(FormatError, match="larger than 65535 bytes") as caught:
        descriptor_from_sddl("D:" + "(A;;FA;;;SY)" * (fits + 1))
    assert caught.value.offset == 2 + 12 * fits


@pytest.mark.parametrize(
    "text",
    [
        "D:" + "(A;;FA;;;SY)" * 200_000,
        "D:" + "P" * 2_000_000,
        "D:(A;" + "OI" * 1_000_000,
        "D:(A;;" + "FA" * 1_000_000,
        "D:(A;;0x" + "f" * 2_000_000,
        "O:S-1-5" + "-1" * 1_000_000,
        "O:S-1-" + "9" * 2_000_000,
        "D:" + "(" * 2_000_000,
    ],
)
@same_everywhere
def test_long_text_takes_bounded_time(text: str) -> None:
    with cpu_time_below(20), contextlib.suppress(FormatError):
        descriptor_from_sddl(text)


@given(st.text("OGDS:PARI();x0123456789-BWFN_", max_size=40))
def test_any_text_gives_a_descriptor_or_a_format_error(text: str) -> None:
    try:
        descriptor = descriptor_from_sddl(text)
    except FormatError as error:
        assert 0 <= error.offset <= len(text)
    else:
        parts_of(descriptor)


def packed_sid(authority: int, sub_authorities: list[int]) -> bytes:
    count = len(sub_authorities)
    return bytes([1, count]) + authority.to_bytes(6, "big") + struct.pack(f"<{count}I", *sub_authorities)


sids = st.builds(
    packed_sid,
    st.one_of(st.integers(0, 20), st.integers(0, (1 << 48) - 1)),
    st.lists(st.integers(0, 0xFFFFFFFF), max_size=15),
)
masks = st.one_of(st.integers(0, 0xFFFFFFFF), st.sampled_from([0x1F01FF, 0x120089, 0x30000, 1, 2, 7]))
plain_aces = st.builds(ace, st.sampled_from([0, 1, 2, 0x11, 0x13, 0x14]), st.integers(0, 255), masks, sids)
guid_fields = st.builds(
    lambda one, other: struct.pack("<I", bool(one) | bool(other) << 1) + one + other,
    st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
    st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
)
object_aces = st.builds(
    lambda kind, flags, mask, guids, sid: ace(kind, flags, mask, guids + sid),
    st.sampled_from([5, 6, 7]),
    st.integers(0, 255),
    masks,
    guid_fields,
    sids,
).filter(lambda found: found[0] != 5 or found[8] != 0)
acls = st.lists(st.one_of(plain_aces, object_aces), max_size=6)


@st.composite
def descriptors(draw: st.DrawFn) -> bytes:
    """Self-relative descriptors that SDDL can express, laid out as ours are."""
    control = 0x8000
    body = b""
    offsets = []
    for sid in (draw(st.none() | sids), draw(st.none() | sids)):
        offsets.append(20 + len(body) if sid else 0)
        body += sid or b""
    for present, flags in ((0x10, 0x2A00), (0x04, 0x1500)):
        kind = draw(st.sampled_from(["absent", "null", "list"]))
        if kind != "absent":
            control |= present | draw(st.integers(0, 0xFFFF)) & flags
        offsets.append(20 + len(body) if kind == "list" else 0)
        if kind == "list":
            aces = draw(acls)
            content = b"".join(aces)
            revision = 4 if any(found[0] in (5, 6, 7) for found in aces) else 2
            body += struct.pack("<BxHHxx", revision, 8 + len(content), len(aces)) + content
    return struct.pack("<BxH4I", 1, control, *offsets) + body


@given(descriptors())
def test_descriptor_survives_its_text(descriptor: bytes) -> None:
    assert descriptor_from_sddl(sddl_from_descriptor(descriptor)) == descriptor


@given(descriptors(), st.data())
def test_damaged_descriptor_gives_text_or_a_format_error(descriptor: bytes, data: st.DataObject) -> None:
    damaged = bytearray(descriptor[: data.draw(st.integers(0, len(descriptor)))])
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        text = sddl_from_descriptor(bytes(damaged))
    except FormatError as error:
        assert error.offset >= 0
    else:
        descriptor_from_sddl(text)


@pytest.mark.parametrize(
    ("descriptor", "offset", "message"),
    [
        ("", 0, "beyond its end"),
        ("02000480" + "00" * 16, 0, "revision 2"),
        ("01000400" + "00" * 16, 2, "not a self-relative"),
        ("0100008014000000" + "00" * 12, 20, "beyond its end"),
        ("0100008014000000" + "00" * 12 + "0201" + "00" * 10, 20, "not a SID"),
        ("0100008014000000" + "00" * 12 + "0110" + "00" * 70, 20, "not a SID"),
        ("0100048000000000000000000000000014000000" + "0200090000000000", 20, "beyond the descriptor"),
        ("0100048000000000000000000000000014000000" + "0200070000000000", 20, "beyond the descriptor"),
        ("0100048000000000000000000000000014000000" + "02000c00010000000000" + "0800", 28, "beyond its list"),
        ("0100048000000000000000000000000014000000" + "02000c00010000000000" + "0000", 28, "beyond its list"),
        ("0100048000000000000000000000000014000000" + "02000c00010000000900" + "0400", 28, "type 9"),
    ],
)
def test_bad_descriptor_is_refused_with_its_offset(descriptor: str, offset: int, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        sddl_from_descriptor(bytes.fromhex(descriptor))
    assert caught.value.offset == offset


def test_unused_room_in_a_list_is_ignored() -> None:
    list_with_room = bytes.fromhex("0200200001000000") + ace(0, 0, 0x1F01FF, SYSTEM) + bytes(4)
    descriptor = bytes.fromhex("0100048000000000000000000000000014000000") + list_with_room
    assert sddl_from_descriptor(descriptor) == "D:(A;;FA;;;SY)"
