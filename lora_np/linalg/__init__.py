"""Rank, decompositions, the best low-rank approximation, and what subspaces say."""
