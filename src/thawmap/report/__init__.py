"""From maps and labels to scores, figures and pages."""
