"""Training without Ray: samples and their order, steps, validation, averaged weights, progress events, curves."""
