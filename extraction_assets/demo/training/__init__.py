"""How the demo model and its sparse autoencoder are trained and measured."""
