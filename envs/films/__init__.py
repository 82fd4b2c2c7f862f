"""Films of whole games: the camera, the MP4 writer, and pictures side by side."""
