"""How a bundle is run: the public Engine, how a batch goes through it, and a folder for each backend."""
