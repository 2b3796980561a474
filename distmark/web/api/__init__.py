"""The REST API under /api/v1: entering contacts and recording events, and pausing, resuming, stopping and draining."""
