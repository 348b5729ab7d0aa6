"""How defects come into images: the pipeline of one sample, the scheduler, the job."""
