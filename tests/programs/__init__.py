"""The programs for readers, run as their readers would run them."""
