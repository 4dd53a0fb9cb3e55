"""Define the version of the package, without importing anything."""

__version__ = "0.2.0"
