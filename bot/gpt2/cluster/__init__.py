"""The engine on several machines: dispatcher, protocol and deployment over Ray Serve."""
