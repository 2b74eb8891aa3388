"""The method's mathematics: pure functions from tensors and plain numbers to tensors."""
