"""Define the commands of ``lora-np``: each calls one function and prints its result."""

from lora_np.cli.dispatch import app, main, run

__all__ = ["app", "main", "run"]
