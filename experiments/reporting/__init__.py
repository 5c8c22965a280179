"""The report: the paper's claims beside what runs found, as one page."""
