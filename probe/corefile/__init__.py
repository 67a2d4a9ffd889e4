"""The text of a Corefile -> its server blocks, plugins and properties with their lines, and what is wrong with it."""

from probe.corefile.parse import parse_corefile
from probe.corefile.plugins import NEWEST, PLUGINS, PROPERTIES, Known, release_of
from probe.corefile.tree import Corefile, Directive, Problem, ServerBlock, duration_of
from probe.corefile.zones import Address, addresses_of

__all__ = [
    "NEWEST",
    "PLUGINS",
    "PROPERTIES",
    "Address",
    "Corefile",
    "Directive",
    "Known",
    "Problem",
    "ServerBlock",
    "addresses_of",
    "duration_of",
    "parse_corefile",
    "release_of",
]
