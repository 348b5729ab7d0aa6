"""Fine-tuning: the model, the objectives and the loop."""
