"""Run the command line as `python -m ascend_middleware.cli`."""

import sys

from . import main

sys.exit(main())
