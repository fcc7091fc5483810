"""`python -m trials`: faults planted into engines' outputs, and how many of them the gate catches."""
