"""``python -m allin_simulator``."""

import sys

from allin_simulator.cli import main

sys.exit(main())
