"""`python -m xray_classifier` and `torchrun -m xray_classifier`."""

import sys

from xray_classifier.cli import main

if __name__ == "__main__":
    sys.exit(main())
