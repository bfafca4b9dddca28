"""For the operator: logs, metrics, health endpoints and error reports."""
