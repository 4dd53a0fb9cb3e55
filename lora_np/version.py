"""The version of the package, which needs nothing else."""

__version__ = "0.2.0"
