"""Whole-model federated learning: clients train whole networks in PyTorch, and a server averages their weights."""
