"""What the machine room looks like: servers, SmartNICs, racks, switches, names and addresses."""
