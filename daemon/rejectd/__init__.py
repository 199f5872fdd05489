"""A service that watches a production line and tells it, in time, which parts to reject."""

import revdist  # noqa: F401  # before torch, which reads what is set there
