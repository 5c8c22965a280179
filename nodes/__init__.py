"""Where it runs: wire formats, the packet path of a compute node, namespaces and cgroups."""
