"""What is learnt with: pictures, lots, copies, painted defects, tiles of large pictures."""
