"""The kinds of control, one field of ``logit_control`` a file.

``logit_processors.registry`` finds the subclasses of ``Control`` in the modules of this package.
"""
