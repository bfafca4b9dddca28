"""The engine on this machine: scheduler, sequences, sampling and introspection on one worker thread."""
