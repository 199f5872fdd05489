"""One self-contained page about a bundle: what it promises, what it missed, and where it looked.

`gather` collects the figures, `cases` the pictures, `charts` draws, `page` writes HTML through `markup`.
"""
