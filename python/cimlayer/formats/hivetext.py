"""What people and programs ask of hives: how two differ, what a delta does, values as JSON, ``.reg`` text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cimfs_ext.errors import FormatError
from cimfs_ext.hivevalues import REG_BINARY, REG_DWORD, REG_SZ, Value, interpret, type_name
from cimfs_ext.names import upcase_key
from cimfs_ext.regf import Hive, Key

_SEMANTICS = 3
_REG_LINE = 80
_REG_HEADER = "Windows Registry Editor Version 5.00"

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"
KeyChangeKind: TypeAlias = Literal["added", "changed", "deleted"]
DeltaKind: TypeAlias = Literal["merge", "delete", "replace values", "replace tree"]
_DELTA_KINDS: tuple[DeltaKind, ...] = ("merge", "delete", "replace values", "replace tree")


def value_to_json(value: Value) -> dict[str, Json]:
    """``name``, ``type`` and ``data``, or ``hex`` in place of ``data`` where ``interpret`` gives None."""
    described: dict[str, Json] = {"name": value.name, "type": type_name(value.type)}
    if value.tombstone:
        return {"name": value.name, "tombstone": True}
    data = interpret(value)
    if data is None:
        described["hex"] = value.data.hex()
    else:
        described["data"] = list(data) if isinstance(data, list) else data
    return described


@dataclass(frozen=True, slots=True)
class ValueChange:
    """A value that is not the same on both sides; ``old`` is None for an added, ``new`` for a deleted one."""

    name: str
    old: Value | None
    new: Value | None

    @property
    def kind(self) -> KeyChangeKind:
        """What happened to the value."""
        return "added" if self.old is None else "deleted" if self.new is None else "changed"

    def to_json(self) -> dict[str, Json]:
        """``name``, ``kind``, and ``old`` and ``new`` as value_to_json has them."""
        described: dict[str, Json] = {"name": self.name, "kind": self.kind}
        if self.old is not None:
            described["old"] = value_to_json(self.old)
        if self.new is not None:
            described["new"] = value_to_json(self.new)
        return described


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key that is not the same on both sides, with those of its values that are not.

    ``properties`` names what else differs: ``class``, ``security``, ``symlink``. Times do not count.
    """

    path: str
    kind: KeyChangeKind
    values: tuple[ValueChange, ...] = ()
    properties: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """The fields, values as ValueChange.to_json has them."""
        return {
            "path": self.path,
            "kind": self.kind,
            "values": [value.to_json() for value in self.values],
            "properties": list(self.properties),
        }


@dataclass(frozen=True, slots=True)
class DeltaChange:
    """What a key of a delta does to the hive that it is merged onto (docs/format.md, "Delta hives").

    ``kind``: ``merge`` sets and deletes values of the key, which is made when missing; ``delete`` drops
    the key with all below it; ``replace values`` leaves the key no other values; ``replace tree``
    leaves it no other subkeys either. ``deletes`` are the names of the values that go.
    """

    path: str
    kind: DeltaKind
    sets: tuple[Value, ...] = ()
    deletes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """The fields, values as value_to_json has them."""
        return {
            "path": self.path,
            "kind": self.kind,
            "sets": [value_to_json(value) for value in self.sets],
            "deletes": list(self.deletes),
        }


def diff(old: Hive, new: Hive) -> Iterator[KeyChange]:
    """What is added, changed and deleted from one hive to the other, parents first; case does not count.

    Each key of an added or deleted tree is listed, with all its values.
    """
    return _diff_keys(old.root, new.root)


def _diff_keys(old: Key, new: Key) -> Iterator[KeyChange]:
    pairs = (
        ("class", old.class_name, new.class_name),
        ("security", old.security, new.security),
        ("symlink", old.symlink, new.symlink),
    )
    properties = [name for name, before, after in pairs if before != after]
    values = tuple(_diff_values(old.values(), new.values()))
    if values or properties:
        yield KeyChange(new.path, "changed", values, tuple(properties))
    remaining = {upcase_key(key.name): key for key in old.subkeys()}
    for key in new.subkeys():
        before = remaining.pop(upcase_key(key.name), None)
        yield from _diff_keys(before, key) if before else _whole(key, "added")
    for key in remaining.values():
        yield from _whole(key, "deleted")


def _whole(key: Key, kind: Literal["added", "deleted"]) -> Iterator[KeyChange]:
    values = key.values()
    changes = _diff_values([], values) if kind == "added" else _diff_values(values, [])
    yield KeyChange(key.path, kind, tuple(changes))
    for subkey in key.subkeys():
        yield from _whole(subkey, kind)


def _diff_values(old: Iterable[Value], new: Iterable[Value]) -> Iterator[ValueChange]:
    remaining = {upcase_key(value.name): value for value in old}
    for value in new:
        before = remaining.pop(upcase_key(value.name), None)
        if before is None or before[1:] != value[1:]:
            yield ValueChange(value.name, before, value)
    for value in remaining.values():
        yield ValueChange(value.name, value, None)


def explain(delta: Hive) -> Iterator[DeltaChange]:
    """What a delta does, read from it alone, parents first.

    A key that is only on the way to others is left out. What stands below a deleted key means nothing.
    """
    return _explain_key(delta.root)


def _explain_key(key: Key) -> Iterator[DeltaChange]:
    kind = _DELTA_KINDS[key.layering & _SEMANTICS]
    if kind == "delete":
        yield DeltaChange(key.path, kind)
        return
    values, subkeys = key.values(), key.subkeys()
    if values or kind != "merge" or (not subkeys and key.path):
        sets = tuple(value for value in values if not value.tombstone)
        yield DeltaChange(key.path, kind, sets, tuple(value.name for value in values if value.tombstone))
    for subkey in subkeys:
        yield from _explain_key(subkey)


def reg_text(hive: Hive, path: str = "", *, root: str = "HKEY_LOCAL_MACHINE\\HIVE") -> str:
    """A key and all below it as the text of a ``.reg`` file, version 5.00, lines ended by CR LF.

    ``root`` is what stands for the hive's root key. Of a delta, deleted keys and values become the
    deletions of that format, and a replaced tree a deletion followed by the new tree; replaced values
    have no counterpart, so values that the delta does not name would stay. Security descriptors and class
    names have none either.
    KeyNotFoundError: there is no such key. FormatError: a name has a line break or a NUL, which has no place there.
    """
    lines = [_REG_HEADER, ""]
    lines += _reg_lines(hive.key(path), root, hive.name)
    return "\r\n".join(lines) + "\r\n"


def reg_file(hive: Hive, path: str = "", *, root: str = "HKEY_LOCAL_MACHINE\\HIVE") -> bytes:
    """The content of a ``.reg`` file as regedit writes it: reg_text in UTF-16 with a byte order mark."""
    return b"\xff\xfe" + reg_text(hive, path, root=root).encode("utf-16-le", "surrogatepass")


def _reg_lines(key: Key, root: str, what: str) -> Iterator[str]:
    place = f"{root}\\{key.path}" if key.path else root
    _check_name(key.name, what)
    kind = _DELTA_KINDS[key.layering & _SEMANTICS]
    if kind in ("delete", "replace tree"):
        yield from (f"[-{place}]", "")
    if kind == "delete":
        return
    yield f"[{place}]"
    for value in key.values():
        _check_name(value.name, what)
        name = f'"{_escape(value.name)}"' if value.name else "@"
        yield from _wrap(f"{name}=", _reg_data(value))
    yield ""
    for subkey in key.subkeys():
        yield from _reg_lines(subkey, root, what)


def _reg_data(value: Value) -> str:
    if value.tombstone:
        return "-"
    data = interpret(value)
    if value.type == REG_DWORD and isinstance(data, int):
        return f"dword:{data:08x}"
    if value.type == REG_SZ and isinstance(data, str) and value.data.endswith(b"\0\0") and data.isprintable():
        return f'"{_escape(data)}"'
    kind = "hex" if value.type == REG_BINARY else f"hex({value.type:x})"
    return f"{kind}:{value.data.hex(',')}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _check_name(name: str, what: str) -> None:
    if any(character in name for character in "\0\r\n"):
        raise FormatError(f"the name {name!r} cannot stand in .reg text", what)


def _wrap(name: str, data: str) -> Iterator[str]:
    """Hexadecimal data goes on in further lines, each but the last ended by a backslash; a name is never broken."""
    text = name + data
    at, indent = 0, ""
    while data.startswith("hex") and len(indent) + len(text) - at > _REG_LINE:
        first = max(at, len(name))
        end = text.rfind(",", first, at + _REG_LINE - 1 - len(indent))
        if end < 0:  # the name alone fills the line
            end = text.find(",", first)
            if end < 0:
                break
        yield f"{indent}{text[at : end + 1]}\\"
        at, indent = end + 1, "  "
    yield indent + text[at:]
