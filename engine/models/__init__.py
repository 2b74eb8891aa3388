"""The three networks, on any timm backbone that supports feature extraction."""
