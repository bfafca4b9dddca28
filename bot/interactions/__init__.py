"""What happens between Discord's interaction and its answer."""
