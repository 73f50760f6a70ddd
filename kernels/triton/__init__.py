"""Triton kernels: one file a kernel, plain jit bodies so that the CPU interpreter can run them."""
