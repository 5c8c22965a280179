"""What captured frames say: the routing proof, and the wire format for scapy and Wireshark."""
