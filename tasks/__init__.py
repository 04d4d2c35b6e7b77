"""One file per step of the workflow: the plain function that does it, and the Prefect task around it."""
