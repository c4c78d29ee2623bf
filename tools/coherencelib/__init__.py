"""What tools/coherence is made of: a schedule from a seed, who carries it out, a model, and judges of what they saw."""
