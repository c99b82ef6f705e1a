"""What uses the models: generation, quality, classifiers, the report and the demo (see CONTRIBUTING.md)."""
