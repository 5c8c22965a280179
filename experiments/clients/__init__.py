"""What clients do and how they judge it: requests, replies, latencies, histories."""
