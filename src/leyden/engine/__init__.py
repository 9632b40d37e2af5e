"""How a pass runs: reductions, sweeps, executors, budgets, progress."""
