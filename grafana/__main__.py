"""Python in; every generated file under grafana/ written, or with --check each that drifted told, out.

`python -m grafana` (`make grafana`) writes; `python -m grafana --check` ends with 1 if anything would change.
"""

from __future__ import annotations

import argparse
import sys

from grafana.files import FILES, drifted, write


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser("python -m grafana", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; tell what is not as it should be")
    if parser.parse_args().check:
        stale = drifted()
        for name in stale:
            print(f"grafana/{name} is not what its source says: run `make grafana` and commit it")
        return 1 if stale else 0
    written = write()
    print(*(f"grafana/{name}" for name in written), f"{len(written)} of {len(FILES)} files written", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
