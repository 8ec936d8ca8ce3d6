"""The client of a whole-OS updater, and the wire format that it shares with the builder."""

__version__ = "0.1.0"
