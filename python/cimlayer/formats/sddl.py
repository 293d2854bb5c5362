"""Security descriptors: SDDL text to self-relative bytes, and back.

Sources: [MS-DTYP] 2.4 (structures) and 2.5.1 (SDDL); Microsoft's pages "Security Descriptor String Format",
"ACE Strings" and "SID Strings"; go-winio, backuptar/tar.go.
"""

from __future__ import annotations

import re
import struct

from cimlayer.errors import FormatError

__all__ = ["descriptor_from_sddl", "owner_from_descriptor", "sddl_from_descriptor", "short_sid"]

HEADER_SIZE = 20
SELF_RELATIVE = 0x8000

# The control bits of the two lists: present, then the letters of the list's flags.
DACL_PRESENT = 0x0004
DACL_FLAGS = {"P": 0x1000, "AR": 0x0100, "AI": 0x0400}
SACL_PRESENT = 0x0010
SACL_FLAGS = {"P": 0x2000, "AR": 0x0200, "AI": 0x0800}
NULL_ACL = "NO_ACCESS_CONTROL"

ACL_REVISION = 2
ACL_REVISION_OBJECT = 4
ACL_LIMIT = 0xFFFF
SUB_AUTHORITY_LIMIT = 15

# Mask and SID follow the header of a plain ace; an object ace has flags and up to two GUIDs between them.
PLAIN_ACES = {"A": 0x00, "D": 0x01, "AU": 0x02, "ML": 0x11, "SP": 0x13, "TL": 0x14}
OBJECT_ACES = {"OA": 0x05, "OD": 0x06, "OU": 0x07}
REFUSED_ACES = {
    **dict.fromkeys(["XA", "XD", "XU", "ZA", "FL"], "conditional aces are not supported"),
    **dict.fromkeys(["AL", "OL"], "alarm aces are not supported"),
    "RA": "resource attribute aces are not supported",
}
ACE_NAMES = {number: name for name, number in (PLAIN_ACES | OBJECT_ACES).items()}
OBJECT_TYPE_PRESENT = 1
INHERITED_OBJECT_TYPE_PRESENT = 2

ACE_FLAGS = {"OI": 0x01, "CI": 0x02, "NP": 0x04, "IO": 0x08, "ID": 0x10, "CR": 0x20, "SA": 0x40, "FA": 0x80}

GENERIC_AND_STANDARD_RIGHTS = {
    "GR": 0x80000000, "GW": 0x40000000, "GX": 0x20000000, "GA": 0x10000000,
    "SD": 0x10000, "RC": 0x20000, "WD": 0x40000, "WO": 0x80000,
}  # fmt: skip
FILE_RIGHTS = {"FA": 0x1F01FF, "FR": 0x120089, "FW": 0x120116, "FX": 0x1200A0}
KEY_RIGHTS = {"KA": 0xF003F, "KR": 0x20019, "KW": 0x20006, "KX": 0x20019}
OBJECT_RIGHTS = {
    "CC": 0x1, "DC": 0x2, "LC": 0x4, "SW": 0x8, "RP": 0x10, "WP": 0x20, "DT": 0x40, "LO": 0x80, "CR": 0x100,
}  # fmt: skip
LABEL_RIGHTS = {"NW": 0x1, "NR": 0x2, "NX": 0x4}
RIGHTS = GENERIC_AND_STANDARD_RIGHTS | FILE_RIGHTS | KEY_RIGHTS | OBJECT_RIGHTS | LABEL_RIGHTS

ALIASES = {
    "WD": "S-1-1-0", "CO": "S-1-3-0", "CG": "S-1-3-1", "OW": "S-1-3-4",
    "NU": "S-1-5-2", "IU": "S-1-5-4", "SU": "S-1-5-6", "AN": "S-1-5-7", "ED": "S-1-5-9", "PS": "S-1-5-10",
    "AU": "S-1-5-11", "RC": "S-1-5-12", "SY": "S-1-5-18", "LS": "S-1-5-19", "NS": "S-1-5-20",
    "WR": "S-1-5-33",
    "BA": "S-1-5-32-544", "BU": "S-1-5-32-545", "BG": "S-1-5-32-546", "PU": "S-1-5-32-547",
    "AO": "S-1-5-32-548", "SO": "S-1-5-32-549", "PO": "S-1-5-32-550", "BO": "S-1-5-32-551",
    "RE": "S-1-5-32-552", "RU": "S-1-5-32-554", "RD": "S-1-5-32-555", "NO": "S-1-5-32-556",
    "MU": "S-1-5-32-558", "LU": "S-1-5-32-559", "IS": "S-1-5-32-568", "CY": "S-1-5-32-569",
    "ER": "S-1-5-32-573", "CD": "S-1-5-32-574", "RA": "S-1-5-32-575", "ES": "S-1-5-32-576",
    "MS": "S-1-5-32-577", "HA": "S-1-5-32-578", "AA": "S-1-5-32-579", "RM": "S-1-5-32-580",
    "UD": "S-1-5-84-0-0-0-0-0", "AC": "S-1-15-2-1", "AS": "S-1-18-1", "SS": "S-1-18-2",
    "LW": "S-1-16-4096", "ME": "S-1-16-8192", "MP": "S-1-16-8448", "HI": "S-1-16-12288", "SI": "S-1-16-16384",
}  # fmt: skip
ALIAS_NAMES = {sid: alias for alias, sid in ALIASES.items()}
# Accounts of a domain or machine: the text says nothing of which one, and a layer belongs to none.
DOMAIN_ALIASES = frozenset(
    ["AP", "CA", "CN", "DA", "DC", "DD", "DG", "DU", "EA", "EK", "KA", "LA", "LG", "PA", "RO", "RS", "SA"]
)

SID_TEXT = re.compile(r"S-1-(?:0[xX]([0-9A-Fa-f]{12})|(\d{1,10}))((?:-\d{1,10})*)", re.ASCII)
NUMBER_TEXT = re.compile(r"0[xX][0-9A-Fa-f]{1,8}|0[0-7]{0,11}|[1-9]\d{0,9}", re.ASCII)
GUID_TEXT = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
ACE_NAME_TEXT = re.compile(r"[A-Z]{1,2}")


def descriptor_from_sddl(text: str) -> bytes:
    """The self-relative security descriptor described by SDDL ``text``.

    Parts may come in any order, each at most once. Raises FormatError, with the character's position as the offset,
    for text that is not SDDL, for conditional and resource attribute ACEs, and for aliases that need a domain. The
    result may exceed the 65,535 bytes that an image can hold.
    """
    reader = _TextReader(text)
    parts: dict[str, bytes] = {}
    control = SELF_RELATIVE
    while not reader.at_end():
        start = reader.position
        part = reader.one_of(("O:", "G:", "D:", "S:"), "O:, G:, D: or S:")
        if part in parts:
            raise reader.error(f"a second {part}", start)
        if part in ("O:", "G:"):
            parts[part] = reader.sid()
        elif part == "D:":
            flags, parts[part] = reader.acl(DACL_FLAGS)
            control |= DACL_PRESENT | flags
        else:
            flags, parts[part] = reader.acl(SACL_FLAGS)
            control |= SACL_PRESENT | flags
    offsets = []
    body = b""
    for part in ("O:", "G:", "S:", "D:"):
        content = parts.get(part, b"")
        offsets.append(HEADER_SIZE + len(body) if content else 0)
        body += content
    return struct.pack("<BxH4I", 1, control, *offsets) + body


class _TextReader:
    """A position in SDDL text, and what can be read there."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def at_end(self) -> bool:
        return self.position == len(self.text)

    def error(self, message: str, position: int | None = None) -> FormatError:
        return FormatError(message, "SDDL", self.position if position is None else position)

    def take(self, token: str) -> bool:
        if not self.text.startswith(token, self.position):
            return False
        self.position += len(token)
        return True

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise self.error(f"{token!r} expected")

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.position)
        if match:
            self.position = match.end()
        return match

    def one_of(self, tokens: tuple[str, ...], expected: str) -> str:
        for token in tokens:
            if self.take(token):
                return token
        raise self.error(f"{expected} expected")

    def bits(self, names: dict[str, int], end: str, what: str) -> int:
        """Two-letter names without separators up to ``end``, which stays unread; their bits or'ed."""
        value = 0
        while not self.text.startswith(end, self.position):
            name = self.text[self.position : self.position + 2]
            if name not in names:
                raise self.error(f"{what} expected")
            value |= names[name]
            self.position += 2
        return value

    def sid(self) -> bytes:
        start = self.position
        alias = self.text[start : start + 2]
        if alias in ALIASES:
            self.position += 2
            return _pack_sid(ALIASES[alias])
        if alias in DOMAIN_ALIASES:
            raise self.error(f"alias {alias} needs a domain SID; give the SID as S-1-...")
        match = self.match(SID_TEXT)
        if match is None:
            raise self.error("SID (S-1-...) or SID alias expected")
        try:
            return _pack_sid(match.group())
        except ValueError as error:
            raise self.error(str(error), start) from None

    def acl(self, flag_names: dict[str, int]) -> tuple[int, bytes]:
        """The control bits of the list's flags, and the ACL: empty bytes for a null one."""
        control = 0
        null = False
        while not self.at_end() and self.text[self.position] in "PAN":
            flag = self.one_of((*flag_names, NULL_ACL), f"P, AR, AI, {NULL_ACL} or an ace")
            null |= flag == NULL_ACL
            control |= flag_names.get(flag, 0)
        if null:
            return control, b""
        aces = []
        size = 8
        revision = ACL_REVISION
        while self.text.startswith("(", self.position):
            start = self.position
            aces.append(self.ace())
            size += len(aces[-1])
            if size > ACL_LIMIT:
                raise self.error(f"the list is larger than {ACL_LIMIT} bytes", start)
            if aces[-1][0] in OBJECT_ACES.values():
                revision = ACL_REVISION_OBJECT
        return control, struct.pack("<BxHHxx", revision, size, len(aces)) + b"".join(aces)

    def ace(self) -> bytes:
        self.expect("(")
        start = self.position
        match = self.match(ACE_NAME_TEXT)
        name = match.group() if match else ""
        if name in REFUSED_ACES:
            raise self.error(REFUSED_ACES[name], start)
        if name not in PLAIN_ACES and name not in OBJECT_ACES:
            raise self.error("unknown type of ace", start)
        self.expect(";")
        flags = self.bits(ACE_FLAGS, ";", "ace flag")
        self.expect(";")
        mask = self.rights()
        self.expect(";")
        guids_at = self.position
        object_type = self.guid()
        self.expect(";")
        inherited_type = self.guid()
        self.expect(";")
        sid = self.sid()
        if self.text.startswith(";", self.position):
            raise self.error("a condition or an attribute: such aces are not supported")
        self.expect(")")
        if name in PLAIN_ACES and (object_type or inherited_type):
            raise self.error(f"an ace of type {name} has no object GUIDs", guids_at)
        if name == "OA" and not (object_type or inherited_type):
            name = "A"  # as Windows does ("ACE Strings")
        if name in PLAIN_ACES:
            body = struct.pack("<I", mask) + sid
        else:
            present = OBJECT_TYPE_PRESENT if object_type else 0
            present |= INHERITED_OBJECT_TYPE_PRESENT if inherited_type else 0
            body = struct.pack("<II", mask, present) + object_type + inherited_type + sid
        return struct.pack("<BBH", (PLAIN_ACES | OBJECT_ACES)[name], flags, 4 + len(body)) + body

    def rights(self) -> int:
        start = self.position
        match = self.match(NUMBER_TEXT)
        if match is None:
            return self.bits(RIGHTS, ";", "access right or number")
        digits = match.group()
        value = int(digits, 16) if digits[1:2] in ("x", "X") else int(digits, 8 if digits[0] == "0" else 10)
        if value > 0xFFFFFFFF:
            raise self.error("the access mask has more than 32 bits", start)
        return value

    def guid(self) -> bytes:
        """The GUID's 16 bytes, or none if the field is empty."""
        if self.text.startswith(";", self.position):
            return b""
        match = self.match(GUID_TEXT)
        if match is None:
            raise self.error("GUID expected")
        from uuid import UUID  # noqa: PLC0415  aces of files have no GUIDs

        return UUID(match.group()).bytes_le


def _pack_sid(text: str) -> bytes:
    """A SID from its S-1-... form, which SID_TEXT has matched."""
    match = SID_TEXT.fullmatch(text)
    assert match is not None
    authority = int(match[1], 16) if match[1] else int(match[2])
    sub_authorities = [int(digits) for digits in match[3].split("-")[1:]]
    if len(sub_authorities) > SUB_AUTHORITY_LIMIT:
        raise ValueError(f"a SID has {SUB_AUTHORITY_LIMIT} sub-authorities at most")
    if any(value > 0xFFFFFFFF for value in sub_authorities):
        raise ValueError("a sub-authority of the SID has more than 32 bits")
    count = len(sub_authorities)
    return bytes([1, count]) + authority.to_bytes(6, "big") + struct.pack(f"<{count}I", *sub_authorities)


def sddl_from_descriptor(data: bytes) -> str:
    """The SDDL text of a self-relative security descriptor.

    SDDL cannot express defaulted parts, the resource manager's control byte, flags of a missing list, and unused space.
    Raises FormatError with the byte offset for an inconsistent descriptor, or one with ACEs that descriptor_from_sddl
    refuses.
    """
    reader = _BytesReader(data)
    control, owner, group, sacl, dacl = reader.header()
    text = ""
    if owner:
        text += "O:" + reader.sid(owner, len(data))[0]
    if group:
        text += "G:" + reader.sid(group, len(data))[0]
    if control & DACL_PRESENT:
        text += "D:" + reader.acl(dacl, control, DACL_FLAGS)
    if control & SACL_PRESENT:
        text += "S:" + reader.acl(sacl, control, SACL_FLAGS)
    return text


def owner_from_descriptor(data: bytes) -> str | None:
    """The owner of a self-relative security descriptor as in SDDL: an alias, such as BA, or a SID; None without one.

    Raises FormatError with the byte offset for an inconsistent descriptor.
    """
    reader = _BytesReader(data)
    _, owner, *_ = reader.header()
    return reader.sid(owner, len(data))[0] if owner else None


def short_sid(text: str) -> str:
    """An alias or SID, in any case, in the form of :func:`owner_from_descriptor`; ValueError for anything else."""
    name = text.upper()
    if name in ALIASES:
        return name
    if not SID_TEXT.fullmatch(name):
        raise ValueError(f"not a SID, nor an alias for one such as BA: {text!r}")
    return ALIAS_NAMES.get(name, name)


class _BytesReader:
    """Bounds-checked reads of a descriptor's structures as text."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def error(self, message: str, offset: int) -> FormatError:
        return FormatError(message, "security descriptor", offset)

    def header(self) -> tuple[int, int, int, int, int]:
        """Control bits, and the offsets of owner, group, SACL and DACL."""
        revision, *rest = self.unpack("<BxH4I", 0, len(self.data))
        if revision != 1:
            raise self.error(f"revision {revision}, 1 expected", 0)
        control, owner, group, sacl, dacl = rest
        if not control & SELF_RELATIVE:
            raise self.error("not a self-relative descriptor", 2)
        return control, owner, group, sacl, dacl

    def unpack(self, layout: str, offset: int, end: int) -> tuple[int, ...]:
        if offset + struct.calcsize(layout) > end:
            raise self.error("a structure reaches beyond its end", offset)
        return struct.unpack_from(layout, self.data, offset)

    def sid(self, offset: int, end: int) -> tuple[str, int]:
        """The SID as alias or S-1-..., and where it ends."""
        revision, count = self.unpack("<BB6x", offset, end)
        if revision != 1 or count > SUB_AUTHORITY_LIMIT:
            raise self.error("not a SID", offset)
        sub_authorities = self.unpack(f"<{count}I", offset + 8, end)
        authority = int.from_bytes(self.data[offset + 2 : offset + 8], "big")
        authority_text = str(authority) if authority < 1 << 32 else f"0x{authority:012X}"
        sid = "-".join(["S-1", authority_text, *map(str, sub_authorities)])
        return ALIAS_NAMES.get(sid, sid), offset + 8 + 4 * count

    def acl(self, offset: int, control: int, flag_names: dict[str, int]) -> str:
        text = "".join(name for name, bit in flag_names.items() if control & bit)
        if offset == 0:
            return text + NULL_ACL
        _, size, count = self.unpack("<BxHHxx", offset, len(self.data))
        end = offset + size
        if size < 8 or end > len(self.data):
            raise self.error("the list reaches beyond the descriptor", offset)
        at = offset + 8
        for _ in range(count):
            kind, flags, ace_size = self.unpack("<BBH", at, end)
            if ace_size < 4 or at + ace_size > end:
                raise self.error("the ace reaches beyond its list", at)
            if kind not in ACE_NAMES:
                raise self.error(f"aces of type {kind} are not supported", at)
            text += self.ace(ACE_NAMES[kind], flags, at + 4, at + ace_size)
            at += ace_size
        return text

    def ace(self, name: str, flags: int, at: int, end: int) -> str:
        (mask,) = self.unpack("<I", at, end)
        at += 4
        guids = ["", ""]
        if name in OBJECT_ACES:
            from uuid import UUID  # noqa: PLC0415

            (present,) = self.unpack("<I", at, end)
            at += 4
            for i, bit in enumerate((OBJECT_TYPE_PRESENT, INHERITED_OBJECT_TYPE_PRESENT)):
                if present & bit:
                    self.unpack("16x", at, end)
                    guids[i] = str(UUID(bytes_le=self.data[at : at + 16]))
                    at += 16
        sid, _ = self.sid(at, end)
        flag_text = "".join(flag for flag, bit in ACE_FLAGS.items() if flags & bit)
        return f"({name};{flag_text};{_rights_text(mask, name)};{guids[0]};{guids[1]};{sid})"


def _rights_text(mask: int, ace_name: str) -> str:
    """Letters where they say exactly the mask, else hexadecimal."""
    for name, value in FILE_RIGHTS.items():
        if mask == value:
            return name
    letters = LABEL_RIGHTS if ace_name == "ML" else GENERIC_AND_STANDARD_RIGHTS
    if mask and not mask & ~sum(letters.values()):
        return "".join(name for name, bit in letters.items() if mask & bit)
    return f"0x{mask:x}"
