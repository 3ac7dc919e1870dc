"""The values that all other packages speak of: images, gradients, seeds, rules, streamlines."""
