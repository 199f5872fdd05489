"""What only a GPU has: CUDA graphs."""
