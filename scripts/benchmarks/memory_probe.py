"""Run a command of the program and print the peak of its anonymous memory beyond `import torch`.

    python -m scripts.benchmarks.memory_probe train -c job.yaml ...

The last line of output is {"peak_bytes": ...}; the exit code is that of the command. Needs Linux.
"""

import json
import sys
import threading
from pathlib import Path

SAMPLED_EVERY_S = 0.005


def main() -> int:
    """Run the words of the command line."""
    import torch  # noqa: F401 - the peak is counted from what it takes

    start_bytes = anonymous_bytes()
    peak_bytes, over = 0, threading.Event()

    def sample() -> None:
        nonlocal peak_bytes
        while not over.wait(SAMPLED_EVERY_S):
            peak_bytes = max(peak_bytes, anonymous_bytes() - start_bytes)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        from xray_classifier.cli import main as program

        code = program(sys.argv[1:])
    finally:
        over.set()
        thread.join()
    print(json.dumps({"peak_bytes": peak_bytes}))
    return code


def anonymous_bytes() -> int:
    """Memory of this process that is no file's, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    sys.exit(main())
