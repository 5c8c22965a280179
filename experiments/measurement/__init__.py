"""From a testbed, or a rack in virtual time, to figures: windows, knees, peaks, power, and their verdict."""
