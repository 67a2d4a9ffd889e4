"""What a person got wrong, or what this machine cannot do: one tree, an exit code each.

    DnsprobeError
    |- UsageError          2   an option, a data file, a run file, a scenario
    |  `- ScenarioError    2   a scenario's YAML: file, line, key
    `- EnvironmentProblem  4   no targets, no permission, too few file descriptors or ports, a port in use

A network fault is never an exception: it is an Outcome.
"""

from __future__ import annotations

EXIT_PASS = 0
EXIT_MISSED = 1
EXIT_USAGE = 2
EXIT_INCONCLUSIVE = 3
EXIT_ENVIRONMENT = 4
EXIT_INTERRUPTED = 130


class DnsprobeError(Exception):
    """A message a person can act on; `exit_code` is what the command exits with."""

    exit_code = EXIT_USAGE


class UsageError(DnsprobeError):
    """An option, a data file or a run file is not usable as given."""


class ScenarioError(UsageError):
    """A scenario's YAML is not usable; the text names the file, the line and the key."""


class EnvironmentProblem(DnsprobeError):
    """This machine, network or cluster cannot do what was asked."""

    exit_code = EXIT_ENVIRONMENT
