"""The one place where files of a checkpoint are read: each may be damaged or malicious.

One module a format. Whatever is wrong with a file becomes one CheckpointError, one sentence with the file's name; what
a file claims of its size is compared with what is on the disk before memory is taken for it; no pickle is loaded but by
``torch.load(weights_only=True)``.
"""

from extraction_assets.engine.file_boundary.checkpoint_file import CheckpointError, CheckpointFile
from extraction_assets.engine.file_boundary.json_object import read_json_object
from extraction_assets.engine.file_boundary.npz import read_npz, read_npz_shapes
from extraction_assets.engine.file_boundary.safetensors_file import (
    StoredTensor,
    read_decoder_part,
    read_header,
    read_safetensors,
)
from extraction_assets.engine.file_boundary.stored_tensors import DecoderPart, StoredTensors
from extraction_assets.engine.file_boundary.torch_file import read_state_dict
from extraction_assets.engine.file_boundary.yaml_object import read_yaml_object

__all__ = [
    "CheckpointError",
    "CheckpointFile",
    "DecoderPart",
    "StoredTensor",
    "StoredTensors",
    "read_decoder_part",
    "read_header",
    "read_json_object",
    "read_npz",
    "read_npz_shapes",
    "read_safetensors",
    "read_state_dict",
    "read_yaml_object",
]
