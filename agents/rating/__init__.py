"""A person rates label maps in the browser, and a policy learns from what they answer: ``python -m agents.rate``."""
