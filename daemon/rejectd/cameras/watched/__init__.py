"""Watches a folder: which file shows which part, and when the file was complete."""
