"""Sound becomes coefficients of expression and head pose; one module for each generator, and their trainings."""
