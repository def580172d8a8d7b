"""The console: what is stored, read over HTTP; what people may do about it; and the public side of the log."""
