"""`python -m pipelines COMMAND ...`: the command line without its console script."""

import sys

from pipelines.cli import main

if __name__ == "__main__":
    sys.exit(main())
