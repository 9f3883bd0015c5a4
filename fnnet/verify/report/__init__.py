"""What is said of a failure: made small, explained, written down."""
