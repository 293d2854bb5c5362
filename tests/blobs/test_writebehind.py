"""Writing behind: all in order, and whatever fails is told."""

from __future__ import annotations

import io
import threading

import pytest

from cimlayer.blobs import writebehind
from cimlayer.blobs.writebehind import PIECES_BEHIND, WriteBehind

PIECES = [bytes([number]) * 10 for number in range(5 * PIECES_BEHIND)]


class Full:
    """Takes a number of pieces and fails at the next one."""

    def __init__(self, room: int) -> None:
        self.taken = 0
        self._room = room

    def write(self, data: memoryview) -> None:
        if self.taken == self._room:
            raise OSError("no room")
        self.taken += 1


@pytest.mark.parametrize("cpus", [1, 2])
def test_all_is_written_in_order(monkeypatch: pytest.MonkeyPatch, cpus: int) -> None:
    monkeypatch.setattr(writebehind, "available_cpus", lambda: cpus)
    output = io.BytesIO()
    with WriteBehind(output) as behind:
        for piece in PIECES:
            behind.write(memoryview(piece))
    assert output.getvalue() == b"".join(PIECES)


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("room", [0, 3, len(PIECES) - 1])
def test_a_failure_is_raised_and_nothing_is_written_after_it(
    monkeypatch: pytest.MonkeyPatch, cpus: int, room: int
) -> None:
    monkeypatch.setattr(writebehind, "available_cpus", lambda: cpus)
    output = Full(room)

    def write_all() -> None:
        with WriteBehind(output) as behind:
            for piece in PIECES:
                behind.write(memoryview(piece))

    with pytest.raises(OSError, match="no room"):
        write_all()
    assert output.taken == room


def test_a_piece_is_not_touched_before_there_is_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writebehind, "available_cpus", lambda: 2)
    begun, go_on = threading.Event(), threading.Event()
    taken: list[bytes] = []

    class Slow:
        def write(self, data: memoryview) -> None:
            begun.set()
            go_on.wait()
            taken.append(bytes(data))

    buffers = [bytearray(10) for _ in range(PIECES_BEHIND + 1)]
    with WriteBehind(Slow()) as behind:
        for number in range(PIECES_BEHIND):
            buffers[number][:] = PIECES[number]
            behind.write(memoryview(buffers[number]))
        begun.wait()
        go_on.set()
        for number in range(PIECES_BEHIND, len(PIECES)):
            buffer = buffers[number % len(buffers)]
            buffer[:] = PIECES[number]
            behind.write(memoryview(buffer))
    assert taken == PIECES


def test_the_error_of_the_block_goes_before_that_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writebehind, "available_cpus", lambda: 2)
    with pytest.raises(ValueError, match="ours"), WriteBehind(Full(0)) as behind:
        behind.write(memoryview(b"x"))
        raise ValueError("ours")


def test_without_a_thread_it_writes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(writebehind, "available_cpus", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    output = io.BytesIO()
    with WriteBehind(output) as behind:
        behind.write(memoryview(b"x"))
        assert output.getvalue() == b"x"
