"""``python -m allin_backend`` is ``allin-backend``."""

import sys

from allin_backend.cli import main

sys.exit(main())
