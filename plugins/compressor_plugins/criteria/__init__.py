"""First-party criteria."""
