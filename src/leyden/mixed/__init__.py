"""Mixed models: fixed effects absorbed, random effects of one and of several factors."""
