"""The testbed itself: a cluster built in namespaces, run, placed upon, orchestrated, broken and watched."""
