"""What an ablation shares between variants: features, decoders, figures."""
