"""Tests: one file per module, tables and drawings, real sockets on loopback."""
