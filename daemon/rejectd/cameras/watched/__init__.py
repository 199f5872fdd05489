"""A watched folder: which file is which part, and when it was complete."""
