"""The interactive command line and its verbs, and the operator's live view."""
