"""What is in a data set, what is odd about it, and what a run on it will take."""
