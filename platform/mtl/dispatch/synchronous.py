"""Trials in rounds: what becomes of a study then does not depend on which worker is quicker."""

from __future__ import annotations

from collections.abc import Collection

from ..worker.messages import Evaluated, Event, Failed, Finished


class Barrier:
    """Holds back the events of trials that run together.

    Ends are let through when every trial of the round has ended, in the order of their numbers: so
    all of them are asked for before any is told. With a pruner, evaluations are let through when
    every trial that still trains has one, again in order: pruning depends on the others' scores.
    What loses a worker or fails for want of memory is no end, and is never held.

    Args:
        pruned: whether the study has a pruner.
    """

    def __init__(self, pruned: bool) -> None:
        self._pruned = pruned
        self._ended: dict[int, Event] = {}
        self._evaluated: dict[int, Event] = {}

    @property
    def ended(self) -> set[int]:
        """Trials whose ends are held back."""
        return set(self._ended)

    def hold(self, event: Event) -> bool:
        """Take an event; False if it is to be handled at once."""
        if isinstance(event, Finished) or (isinstance(event, Failed) and _is_end(event)):
            self._ended[event.number] = event
        elif self._pruned and isinstance(event, Evaluated):
            self._evaluated[event.number] = event
        else:
            return False
        return True

    def release(self, running: Collection[int]) -> list[Event]:
        """Return what can be handled now.

        Args:
            running: numbers of the round's trials that have not been told yet.
        """
        training = set(running) - self.ended
        if not training:
            return _emptied(self._ended)
        if self._evaluated and training <= self._evaluated.keys():
            return _emptied(self._evaluated)
        return []


def _is_end(event: Failed) -> bool:
    return not (event.memory or event.blocked or event.bad_input)


def _emptied(events: dict[int, Event]) -> list[Event]:
    ordered = [events[number] for number in sorted(events)]
    events.clear()
    return ordered
