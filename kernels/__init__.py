"""How a design point runs: the recurrence, its chunkwise form, and Triton kernels."""

if __name__ != "miras_search.kernels":
    raise ImportError("import this package as miras_search.kernels, not as kernels")
