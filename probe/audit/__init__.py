"""Snapshot -> findings: what will break in the next CoreDNS upgrade, with the command that mends each point."""
