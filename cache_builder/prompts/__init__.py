"""From contrast pairs to what a model reads: settings, chat templates, token ids, and the engine's examples."""
