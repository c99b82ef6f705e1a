"""One page that shows a whole run of the pipeline: pictures, figures, and what is missing."""
