"""The search for alpha, beta and the number of steps with Ray Tune."""
