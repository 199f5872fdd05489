"""What only a GPU has: results that are copied while it goes on computing, and CUDA graphs."""
