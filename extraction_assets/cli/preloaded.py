"""What every process of ``run NAME --gpus N`` needs, to be imported once for all of them.

None of it starts CUDA, which would not work in the processes that are forked later.
"""

import contextlib
import os

os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # for a library that asks for GPUs on import

with contextlib.suppress(Exception):  # what fails here fails again in the process that needs it, and is explained there
    import transformers.modeling_utils  # noqa: F401 - it takes the most time
    from transformers import AutoConfig, AutoModel, AutoTokenizer  # noqa: F401 - found where they are named

    import extraction_assets.assets.chunks.step
    import extraction_assets.cli.app
    import extraction_assets.cli.declared_extractions
    import extraction_assets.cli.runner  # noqa: F401
