"""The data to learn from: pictures, lots, copies, painted defects, tiles of large pictures."""
