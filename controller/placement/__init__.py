"""Where microservices run: HCM, simulated annealing and an integer program, over one state of the cluster."""
