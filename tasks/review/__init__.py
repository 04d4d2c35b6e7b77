"""Review in MLflow's registry: the page that a reviewer reads, the tags that he sets, and what follows from them."""
