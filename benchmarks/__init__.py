"""Comparisons with peers, side by side in one process: ``python -m benchmarks`` lists them."""
