"""One adapter per data set; `get_source(name)` gives it."""

from components.sources.base import Found, Listing, Source, inside
from components.sources.known import SOURCES, get_source

__all__ = ["SOURCES", "Found", "Listing", "Source", "get_source", "inside"]
