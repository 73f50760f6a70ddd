"""`python -m miras_search`, which is `miras-search`."""

import sys

from miras_search.cli import main

if __name__ == "__main__":
    sys.exit(main())
