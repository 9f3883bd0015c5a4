"""The probes that check a rule, one per file."""
