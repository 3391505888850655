"""Measuring a network over links: real processes, an emulated line between them, and the record of it."""
