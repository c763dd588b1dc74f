"""Many trainings: cross-validation and tuning."""
