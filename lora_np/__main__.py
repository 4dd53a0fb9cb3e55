"""``python -m lora_np`` is ``lora-np``."""

import sys


def main() -> None:
    """The entry point of the command line, also while its imports run: Ctrl-C is never a
    traceback.
    """
    try:
        from lora_np import cli

        cli.main()
    except KeyboardInterrupt:
        print("lora-np: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
