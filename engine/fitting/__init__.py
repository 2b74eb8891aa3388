"""Training without Ray: samples and their order, a step, validation, averaged weights, progress events, curves."""
