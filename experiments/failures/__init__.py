"""Failures under load, on packets and in virtual time: what strikes, what is asked meanwhile, who judges replies."""
