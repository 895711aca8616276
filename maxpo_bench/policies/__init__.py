"""What samples are drawn from: tables of logits, small networks, causal language models.

Seeds are a batch axis where they can be."""
