"""Keeps things on the disk: journal and outbox, in-flight file, evidence. One thread owns the disk."""
