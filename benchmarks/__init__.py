"""Times of lode and of its peers, side by side: ``python -m benchmarks --help``."""
