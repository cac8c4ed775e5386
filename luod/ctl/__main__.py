"""`python -m luod.ctl` is luoctl."""

import sys

from luod.ctl import main

sys.exit(main())
