"""``lora-np ...``: each command parses its arguments, calls one function and prints what it
returns.
"""

from lora_np.cli.dispatch import app, main, run

__all__ = ["app", "main", "run"]
