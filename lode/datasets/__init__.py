"""Data sets of the paper: generation, acquisition and reading."""
