"""Deployment: what turns a bundle on this machine into a running device process on a board."""
