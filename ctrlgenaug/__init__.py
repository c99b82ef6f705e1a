"""Everything in Ctrl-GenAug that is not a generative model: data, conditions, training, quality, classifiers."""
