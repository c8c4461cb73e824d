"""How close decisions are to going the other way."""
import numpy as np


class Margins:
    """Counts decisions whose relative margin is small, and the smallest margin."""

    LIMITS = (1e-6, 1e-5, 1e-4)

    def __init__(self):
        self.decisions, self.least, self.below = 0, np.inf, dict.fromkeys(self.LIMITS, 0)

    def see(self, chosen, other):
        """Decisions between numbers (arrays or single): distance over the larger magnitude; equal zeros are exact."""
        chosen, other = np.broadcast_arrays(np.asarray(chosen, float), np.asarray(other, float))
        size = np.maximum(np.abs(chosen), np.abs(other))
        self.count(np.abs(chosen - other)[size > 0] / size[size > 0])

    def count(self, margins):
        margins = np.atleast_1d(margins)
        self.decisions += margins.size
        if margins.size:
            self.least = min(self.least, float(margins.min()))
        for limit in self.LIMITS:
            self.below[limit] += int((margins < limit).sum())

    def join(self, other):
        self.decisions += other.decisions
        self.least = min(self.least, other.least)
        for limit in self.LIMITS:
            self.below[limit] += other.below[limit]

    def told(self):
        counts = {f"below_{limit:.0e}".replace("e-0", "e-"): count for limit, count in self.below.items()}
        return dict(decisions=self.decisions, least=float(f"{self.least:.2g}") if self.decisions else None, **counts)
