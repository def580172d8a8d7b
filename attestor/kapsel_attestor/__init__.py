"""The attestor: puts every attempt into the log, fences, signs and publishes its heads."""
