"""Holding requests back from a platform that does not answer them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final


class CircuitOpenError(Exception):
    """The request must not be sent. ``wait`` is the number of seconds until it is worth trying again."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"held back for another {wait:.1f} s")
        self.wait = wait


class Permit:
    """The leave to send one request. Exactly one of its methods is called when its outcome is known."""

    def __init__(self, breaker: CircuitBreaker, generation: int) -> None:
        self._breaker = breaker
        self._generation = generation

    def answered(self) -> None:
        """The platform answered, be it with a refusal."""
        self._breaker._answered(self._generation)

    def failed(self) -> None:
        """The platform failed: no answer, or an error of its own."""
        self._breaker._failed(self._generation)

    def abandoned(self) -> None:
        """Nobody waited for the outcome: it says nothing about the platform."""
        self._breaker._abandoned(self._generation)


class CircuitBreaker:
    """Closed: everything passes. Open, after ``threshold`` failures in a row: nothing passes for ``open_seconds``.

    Then one request, the probe, may pass: its answer closes the circuit, its failure opens it again.

    ``on_change`` is told whether requests are held back, when that changes. ``clock`` gives monotonic seconds.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        on_change: Callable[[bool], None],
        threshold: int = 5,
        open_seconds: float = 30.0,
    ) -> None:
        self._clock: Final = clock
        self._on_change: Final = on_change
        self._threshold: Final = threshold
        self._open_seconds: Final = open_seconds
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False
        # Counts the changes of state: what was sent before the last one says nothing about the present state.
        self._generation = 0

    @property
    def is_open(self) -> bool:
        """Whether requests are held back, other than a probe."""
        return self._open_until is not None

    def admit(self) -> Permit:
        """Leave to send a request now.

        Raises:
            CircuitOpenError: the request must not be sent.
        """
        if self._open_until is not None:
            wait = self._open_until - self._clock()
            if wait > 0:
                raise CircuitOpenError(wait)
            if self._probing:
                raise CircuitOpenError(1.0)
            self._probing = True
            self._generation += 1
        return Permit(self, self._generation)

    def _answered(self, generation: int) -> None:
        if generation != self._generation:
            return
        self._failures = 0
        if self._open_until is not None:
            self._open_until = None
            self._probing = False
            self._generation += 1
            self._on_change(False)

    def _failed(self, generation: int) -> None:
        if generation != self._generation:
            return
        self._failures += 1
        if self._open_until is not None or self._failures >= self._threshold:
            was_open = self.is_open
            self._open_until = self._clock() + self._open_seconds
            self._probing = False
            self._generation += 1
            self._failures = 0
            if not was_open:
                self._on_change(True)

    def _abandoned(self, generation: int) -> None:
        if generation == self._generation:
            self._probing = False
