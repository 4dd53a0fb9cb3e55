"""``python -m lora_np`` is ``lora-np``."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, even during imports."""
    try:
        from lora_np import cli

        cli.main()
    except KeyboardInterrupt:
        print("lora-np: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
