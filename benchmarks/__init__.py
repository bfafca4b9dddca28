"""What is measured by hand: nothing here is part of the bot or of its tests."""
