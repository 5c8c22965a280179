"""What runs: microservices, the state they keep, and the applications made of them."""
