"""Which experiments there are, how they are told what to do, and where their results lie."""
