"""How good it is: AUROC, PRO, rates, sensitivity to painted defects, heat maps."""
