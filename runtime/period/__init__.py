"""What an auditor asks of a shift, a day or a month: one HTML file made from the inspection log."""
