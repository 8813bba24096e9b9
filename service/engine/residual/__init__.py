"""The residual stream of the running model: steering it, and taking copies of it.

After a decoder layer a forward hook calls one custom op; an eager layer has the hook only
in steps that need it. What the op does in a step lies in static buffers that are filled
before the step, so that eager execution, torch.compile and CUDA graphs run the same code.
"""
