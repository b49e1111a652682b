"""What somebody may have meant by a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(word: str, names: Iterable[str]) -> str:
    """`, did you mean …?` if one of the names is near, else nothing."""
    found = difflib.get_close_matches(word, list(names), n=1, cutoff=0.7)
    return f", did you mean {found[0]}?" if found else ""
