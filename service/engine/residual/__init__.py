"""The residual stream of the running model: steering and captures.

After a decoder layer a forward hook calls one custom op; an eager layer has the hook only in steps
that need it. The op's work in a step is described by static buffers that are filled before the
step, so that eager execution, torch.compile and CUDA graphs run the same code.
"""
