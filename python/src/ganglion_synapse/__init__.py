"""The bridge between Synapse and Ganglion: a Synapse module that asks Ganglion what Synapse asks its modules."""

from .bridge import Bridge
from .version import VERSION

__all__ = ["Bridge"]
__version__ = VERSION
