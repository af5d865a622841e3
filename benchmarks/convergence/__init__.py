"""How close learning from scores comes to cross-entropy: suites of training runs, their tables and plots."""
