"""What of its agents' messages a host has been brought, and what it may hand over itself.

    store's seqs   ... cursor ........ handed ............. head
                   a poll had these    sent from here to    a poll must bring these
                                       agents of this host

A message that was sent from here to an agent that lives here need not wait for
a poll.  But it must not overtake what its sender sent before it and a poll has
yet to bring: so it is handed over only when nothing of its sender can be on its
way.
"""

from __future__ import annotations


class Order:
    """The seqs of one host's messages."""

    def __init__(self) -> None:
        self.cursor = 0
        """Every message up to here for an agent of this host has been brought by a poll."""
        self._handed = 0
        """The same, with what was handed over right after it."""
        self._left: dict[str, int] = {}
        """Agent -> seq of the latest message it has sent that a poll or claim must bring, or of
        the first it has sent from here."""

    @property
    def next_poll(self) -> int:
        """The next poll begins after this one."""
        return max(self.cursor, self._handed)

    def polled(self, cursor: int) -> None:
        self.cursor = cursor
        self._handed = max(self._handed, cursor)

    def handled(self, seq: int) -> None:
        """This message was handled at once, so no poll brings it."""
        if seq == self._handed + 1:
            self._handed = seq

    def sent(self, sender: str | None, seqs: tuple[int, ...], all_live_here: bool) -> bool:
        """One commit's messages; whether those for agents of this host may be handed over.

        Args:
            sender: an agent that lives here, or None.
            all_live_here: no poll is needed to bring any of them.
        """
        first = self._nothing_before(sender, seqs[0])
        if not (first and all_live_here):
            if sender is not None:
                self._left[sender] = max(self._left.get(sender, 0), seqs[-1])
        elif seqs[0] <= self._handed + 1:
            self._handed = max(self._handed, seqs[-1])
        return first

    def _nothing_before(self, sender: str | None, seq: int) -> bool:
        """Whether no earlier message of the sender can still be on its way here with a poll.

        What an agent sent before it came here has a seq below its first from here.
        """
        next_one = seq <= self._handed + 1
        if sender is None:
            return next_one
        left = self._left.setdefault(sender, self._handed if next_one else seq)
        return next_one or left <= self._handed

    def forget(self, sender: str) -> None:
        """The agent lives here no more, or anew."""
        self._left.pop(sender, None)

    def begin_anew(self) -> None:
        """The host has another name: its polls begin with all that its agents wait for."""
        self.cursor = self._handed = 0
