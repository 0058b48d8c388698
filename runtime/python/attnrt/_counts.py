# runtime/python/attnrt/_counts.py: counts which calls attnrt computed, and why others were left
"""What attnrt.torch and attnrt.transformers count of the calls that they are offered."""

from __future__ import annotations

import collections
import threading
from typing import Any

MOST_REASONS = 100  # texts of backends name sizes, and there are many


class NotServed(Exception):
    """Why a call is left to torch."""


class Traced(NotServed):
    """Torch traces the call, and computes nothing yet: it does not count."""


class Counts:
    """Calls that were served, by kind, and calls that were left, by reason.

    THREADS: any call from any threads at once.
    """

    def __init__(self, kinds: str) -> None:
        self._kinds = kinds  # what snapshot() calls the kinds
        self._lock = threading.Lock()
        self._served: collections.Counter[str] = collections.Counter()
        self._reasons: collections.Counter[str] = collections.Counter()

    def served(self, kind: str) -> None:
        """Counts a call that attnrt computed."""
        with self._lock:
            self._served[kind] += 1

    def left(self, why: NotServed) -> bool:
        """Counts a call that is left to torch, unless torch only traces it.

        Returns whether this is the first call that is counted under its reason.
        """
        if isinstance(why, Traced):
            return False
        reason = str(why)
        with self._lock:
            known = reason in self._reasons
            if not known and len(self._reasons) >= MOST_REASONS:
                reason, known = "others", True
            self._reasons[reason] += 1
        return not known

    def snapshot(self) -> dict[str, Any]:
        """Returns served, fell_back, the served calls by kind, and reasons."""
        with self._lock:
            return {
                "served": self._served.total(),
                "fell_back": self._reasons.total(),
                self._kinds: dict(self._served),
                "reasons": dict(self._reasons),
            }

    def reset(self) -> None:
        """Sets all counts to 0."""
        with self._lock:
            self._served.clear()
            self._reasons.clear()
