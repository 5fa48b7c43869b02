"""One unit, a model on a dataset, from its prompts to the arrays of its file."""
