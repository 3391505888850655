"""edgekit: collaborative learning over thin links."""

__version__ = "0.1.0"
