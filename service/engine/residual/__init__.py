"""The residual stream of the running model: steering it, and taking copies of it.

After every decoder layer a forward hook calls one custom op. What the op does in a step
lies in static buffers that are filled before the step, so that eager execution,
torch.compile and CUDA graphs run the same code.
"""
