"""Where deliveries may go: one judgement for the plan of a manifest and for the try that follows it."""
