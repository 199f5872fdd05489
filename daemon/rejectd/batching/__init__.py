"""Collects frames into batches that can be judged in time."""
