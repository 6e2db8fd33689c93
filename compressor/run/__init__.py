"""What happens: the session, the steps, the journal, the pipeline."""
