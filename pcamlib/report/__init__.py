"""What a reader sees: tables, figures, widgets and sentences."""
