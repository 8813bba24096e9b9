"""The class of vLLM's workers (``--worker-cls``): the platform's, with the residual stream.

The residual stream needs a worker at two moments: after it has loaded the model, before it
profiles, compiles and captures it; and around each step.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from vllm.platforms import current_platform

from service.engine.residual.attach import attach, salt_compile_cache
from service.engine.residual.running import steps_of

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as StockWorker
elif current_platform.is_xpu():
    from vllm.v1.worker.xpu_worker import XPUWorker as StockWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as StockWorker

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput


class ServingWorker(StockWorker):
    """The platform's worker, attached to its model's residual stream."""

    def load_model(self, **options: Any) -> None:
        """Load the model and attach to it."""
        salt_compile_cache(self.vllm_config)
        super().load_model(**options)
        attach(self.model_runner, self.vllm_config)

    @torch.inference_mode()
    def execute_model(self, scheduler_output: SchedulerOutput) -> Any:
        """Run a step within the residual stream's preparation and end."""
        steps = steps_of(self.model_runner)
        with nullcontext() if steps is None else steps.running(scheduler_output):
            return super().execute_model(scheduler_output)
