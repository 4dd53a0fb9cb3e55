"""Run the command line with ``python -m lora_np``."""

import sys


def main() -> None:
    """Run the command line so that Ctrl-C never prints a traceback, even during imports."""
    try:
        from lora_np import cli

        cli.main()
    except KeyboardInterrupt:
        print("lora-np: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
