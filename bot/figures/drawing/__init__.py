"""The parts of pictures: canvas, fonts, token layout, colours, scales and captions."""
