"""`python -m kapsel_verifier` is kapsel-verify."""

import sys

from kapsel_verifier.cli import main

if __name__ == "__main__":
    sys.exit(main())
