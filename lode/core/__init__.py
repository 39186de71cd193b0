"""Compiled loops: arrays and scalars in, arrays out.

One file per public module, and no file imports another: Numba's disk cache
watches a single file, so a kernel calling one from elsewhere would go stale.
"""
