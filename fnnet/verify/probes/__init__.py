"""The ways to look at a rule, one a file."""
