"""torch's operations on processors: fused, packed, in bfloat16 and in 8 bits."""
