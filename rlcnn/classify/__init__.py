"""Image classification: labelled images, classifiers on an encoder, and training them."""
