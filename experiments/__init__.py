"""What reproduces the figures of quality."""
