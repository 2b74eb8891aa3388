"""Bytes to pixels: decoding, orientation, scaling, the memory they take."""
