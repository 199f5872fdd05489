"""For GPUs only: copies of results while the GPU goes on computing, and CUDA graphs."""
