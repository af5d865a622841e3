"""``python -m rss_env`` is ``rss-env``."""

import sys

from rss_env.cli import main

if __name__ == "__main__":
    sys.exit(main())
