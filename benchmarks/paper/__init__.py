"""The paper's own tables and figures, repeated in form on any data and any model."""
