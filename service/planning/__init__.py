"""What one request needs: its control, its rows of logits, its share of memory."""
