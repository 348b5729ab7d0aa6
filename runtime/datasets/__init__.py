"""What a job reads and writes: where masks come from, the journal, the dataset and its formats."""
