"""What ``data`` may be: one module for each kind of source, and the rows that all of them give."""
