"""A service that watches a production line and tells it, in time, which parts to reject."""
