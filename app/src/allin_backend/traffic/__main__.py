"""``python -m allin_backend.traffic`` is ``allin-traffic``."""

import sys

from allin_backend.traffic.cli import main

sys.exit(main())
