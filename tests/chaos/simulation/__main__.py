"""`make chaos`: runs seeds, says what is wrong, and how each is run again."""

import os
import sys

if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of what a seed fixes
    os.execve(
        sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"}
    )

import simulation.clock  # noqa: F401 - before all that keeps the time functions which it finds
from simulation.runner import main

sys.exit(main())
