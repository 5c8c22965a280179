"""Who decides: the top-of-rack program and the app that installs it."""
