"""The language model of an extraction."""

from typing import Literal

from extraction_assets.settings.checkpoint_reference import CheckpointReference
from extraction_assets.settings.validation import Settings


class LanguageModelSettings(Settings):
    """The language model whose activations are read."""

    path: str
    """Folder of a Hugging Face model (relative to the YAML file), or its id on the hub."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the forward pass; auto is the checkpoint's on a GPU and float32 on a CPU."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model, for one that transformers itself does not know. Read that code first:
    it runs with your rights, as a YAML file from somebody else may (docs/settings.md, "A YAML file is code")."""

    @property
    def checkpoint(self) -> CheckpointReference:
        """Which checkpoint is meant."""
        return CheckpointReference(self.path, self.revision, self.trust_remote_code)
