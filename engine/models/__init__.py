"""The three networks, over any timm backbone that offers features."""
