"""Commands of `python -m bot`: each opens what it needs, and closes it in reverse."""
