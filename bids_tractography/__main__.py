"""``python -m bids_tractography``."""

import sys

from bids_tractography.cli import main

if __name__ == "__main__":
    sys.exit(main())
