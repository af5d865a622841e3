"""The documentation: its pages, and in ``generate`` what makes those that come from the code."""
