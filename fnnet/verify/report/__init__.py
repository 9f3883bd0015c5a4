"""Reporting a failure: minimized, explained, and written as a reproduction."""
