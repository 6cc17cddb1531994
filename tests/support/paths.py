"""Where the repository lies, and what tests use that is no part of it."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
REAL = REPOSITORY.parent / "shared"
"""Real data and weights, beside the repository: tests that need them skip where they are not."""
