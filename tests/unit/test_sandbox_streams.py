"""What is kept of a stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.sandbox.streams import HeadTail


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(2, 60))
def test_the_head_and_the_tail_are_kept_exactly(chunks: list[bytes], bytes_max: int) -> None:
    """Output would be lost or doubled where chunks meet the bound."""
    kept = HeadTail(bytes_max)
    for chunk in chunks:
        kept.add(chunk)
    whole = b"".join(chunks)
    assert kept.total == len(whole)
    if len(whole) <= bytes_max:
        assert (kept.content(), kept.elided) == (whole, 0)
    else:
        head, tail = bytes_max // 2, bytes_max - bytes_max // 2
        note = f"\n[... {len(whole) - bytes_max} bytes not kept ...]\n".encode()
        assert kept.content() == whole[:head] + note + whole[-tail:]


def test_memory_stays_bounded_however_long_the_stream() -> None:
    """A command that prints for ever would fill the host's memory."""
    kept = HeadTail(1_000)
    for _ in range(2_000):
        kept.add(b"x" * 10_000)
    assert len(kept._head) + len(kept._tail) < 100_000
    assert kept.total == 20_000_000
