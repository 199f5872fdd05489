"""Measures how good a bundle is: AUROC, PRO, rates, sensitivity to painted defects, heat maps."""
