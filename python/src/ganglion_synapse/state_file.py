"""Where the last announcement outlives a restart of Synapse: a file that all its processes may share."""

from __future__ import annotations

import json
import logging
import os
import tempfile

from .hello import Announcement

logger = logging.getLogger(__name__)


def store(path: str, announcement: Announcement) -> None:
    """Writes the file. A failure is logged: the next start only knows less."""
    text = json.dumps(announcement.to_json(), indent=1) + "\n"
    try:
        # Whoever reads it meanwhile, another process perhaps, finds the old one or the new one, never a part.
        handle, temporary = tempfile.mkstemp(prefix=".ganglion-", dir=os.path.dirname(path) or ".")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        logger.warning("the state file %s cannot be written: %s", path, error)


def load(path: str) -> Announcement | None:
    """Reads the file; `None` if there is none, or none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return Announcement.read(json.load(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("the state file %s cannot be read: %s", path, error)
        return None
