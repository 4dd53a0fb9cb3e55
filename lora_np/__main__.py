"""``python -m lora_np`` is ``lora-np``."""

from lora_np.cli import main

main()
