"""Who signs the heads of a log, wherever the key is: one module for each place."""
