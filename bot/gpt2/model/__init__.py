"""The model itself: its files, its weights and its forward pass."""
