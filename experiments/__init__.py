"""What is measured: the testbed, its clients, the proofs, and the command line."""
