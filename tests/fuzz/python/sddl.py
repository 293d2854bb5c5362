"""SDDL and security descriptors: one gives the other, and giving it again changes nothing."""

from __future__ import annotations

from cimlayer.errors import FormatError
from cimlayer.formats.sddl import descriptor_from_sddl, sddl_from_descriptor

TEXTS = (
    "O:BAG:SYD:PAI(A;OICI;FA;;;SY)(D;;0x1f;;;S-1-5-21-1-2-3-500)",
    "O:S-1-0x123456789ABC-1G:S-1-1-0D:NO_ACCESS_CONTROL",
    "D:AR(OA;CINP;GRGW;00000001-0002-0003-0405-060708090a0b;;AU)(OD;;RPWP;;00000001-0002-0003-0405-060708090a0b;WD)",
    "S:P(AU;SAFA;KA;;;WD)(ML;;NWNR;;;HI)(OU;ID;010;;;BU)",
)


def seeds() -> dict[str, bytes]:
    """A byte whose lowest bit says which way, then text or a descriptor."""
    texts = {f"text-{number}": b"\0" + text.encode() for number, text in enumerate(TEXTS)}
    return texts | {f"bytes-{number}": b"\1" + descriptor_from_sddl(text) for number, text in enumerate(TEXTS)}


def run(data: bytes) -> None:
    """Go the way that the input says, and then round until nothing changes."""
    if not data:
        return
    is_text, source = not data[0] & 1, data[1:]
    try:
        if is_text:
            text = sddl_from_descriptor(descriptor_from_sddl(source.decode("utf-8", "surrogateescape")))
        else:
            text = sddl_from_descriptor(source)
    except FormatError as error:
        assert error.reason
        assert error.offset >= 0
        return
    descriptor = descriptor_from_sddl(text)
    assert descriptor_from_sddl(sddl_from_descriptor(descriptor)) == descriptor
    if is_text:
        assert sddl_from_descriptor(descriptor) == text
