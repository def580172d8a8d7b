"""The deliverer: claims deliveries that are due, sends them signed, records each try, retries as the policy says."""
