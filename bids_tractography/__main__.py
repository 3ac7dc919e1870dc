"""``bids-tractography`` and ``python -m bids_tractography``."""

import os
import pwd
import sys
import tempfile


def main() -> int:
    """Run the command line, also as a user that the system does not know.

    Such a user, without ``HOME``, is who containers run as; libraries look for a home as they are
    imported.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("HOME", tempfile.gettempdir())
    from bids_tractography import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
