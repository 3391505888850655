"""Deployment: makes a bundle on this machine a running device process on a board, over ssh."""
