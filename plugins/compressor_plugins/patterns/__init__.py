"""First-party sparsity patterns."""
