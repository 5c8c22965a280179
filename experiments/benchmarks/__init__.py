"""Speed of the testbed itself, always as ratios side by side in one run."""
