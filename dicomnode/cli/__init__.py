"""The command line: one file for each group of commands. It decides nothing: it asks `dicomnode.operations` and prints.

Whatever is heavy is imported inside the command that needs it, so that `--help` and mistakes are answered at once.
"""

import sys


def main() -> None:
    """The console script `dicomnode`."""
    from dicomnode.cli.app import run

    sys.exit(run(sys.argv[1:]))
