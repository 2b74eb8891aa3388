"""What fits a network, without Ray: the learner, its clock and words, validation, averaged weights, curves."""
