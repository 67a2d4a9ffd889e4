"""`python -m probe.cli`: the words and the exit codes of the command `dnsprobe`."""

from probe.cli import main

if __name__ == "__main__":
    main()
