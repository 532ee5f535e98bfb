"""The paper's section 4: features, selection, quality, memorisation, classification, and the choice of settings."""
