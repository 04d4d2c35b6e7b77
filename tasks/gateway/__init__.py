"""The webhook gateway: what comes in is checked, kept on disk, and passed on to Prefect."""
