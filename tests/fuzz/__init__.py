"""Octets that somebody sends -> nothing but what is declared: what is fuzzed, and who fuzzes it."""
