"""What every process of ``run NAME --gpus N`` needs, to be imported once for all of them.

None of it starts CUDA, which would not work in the processes that are forked later.
"""

import contextlib
import os

os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # for a library that asks for GPUs on import

with contextlib.suppress(Exception):  # what fails here fails again in the process that needs it, and is explained there
    import alembic.command  # noqa: F401 - for Dagster's storage
    import pandas  # noqa: F401 - pyarrow imports it to see whether an array is a series
    import transformers.modeling_utils  # noqa: F401 - it takes the most time
    from transformers import AutoConfig, AutoModel, AutoTokenizer  # noqa: F401 - found where they are named
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    import extraction_assets.assets.chunks.step
    import extraction_assets.cli.app
    import extraction_assets.cli.declared_extractions
    import extraction_assets.cli.runner
    import extraction_assets.component
    import extraction_assets.defs_yaml.folder
    import extraction_assets.python_api  # noqa: F401

    get_checkpoint_conversion_mapping("llama")  # builds those of all models, which takes 0.2 seconds
