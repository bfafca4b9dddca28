"""What pictures are made of: canvas, fonts, token layout, colours, scales and captions."""
