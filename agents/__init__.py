"""Reference agents for the RSS environments, run from a checkout: ``python -m agents.rss``."""
