"""First-party metrics that tasks do not have themselves."""
