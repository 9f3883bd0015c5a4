"""A function to check: its arguments, what they may hold, the programs that evaluate it, and the script that reproduces a failure."""
