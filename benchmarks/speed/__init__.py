"""What the measurements of speed share; each of them is a command at the top of ``benchmarks``."""
