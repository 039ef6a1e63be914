"""The fused engine: exact per-sample importance at the price of one backward pass."""
