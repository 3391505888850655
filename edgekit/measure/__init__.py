"""Measures training over links: real processes with an emulated link between them, and the record of it."""
