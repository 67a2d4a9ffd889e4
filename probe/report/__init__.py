"""A Run -> a report: text for people, JSON for programs, lines of it for logs, pages and pictures for all others."""
