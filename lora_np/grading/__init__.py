"""Exercises graded: what teachers run."""
