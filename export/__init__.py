"""From a fine-tuned model to an engine directory."""
