"""What the operator sees: logs, metrics, health endpoints and reports of faults."""
