"""What scores say about the hidden target, for algorithms that read the policy as a belief."""
