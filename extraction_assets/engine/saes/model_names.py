"""When two names of a language model mean the same one."""

_SAME_MODEL = {"gpt2-small": "gpt2", "mistral-7b": "mistral-7b-v0.1"}
"""Names that TransformerLens gives to models of the hub, where they differ by more than the owner."""


def plain_model_name(name: str) -> str:
    """A model's name in lower case, without its owner or folder: equal for all spellings of one model."""
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    return _SAME_MODEL.get(last, last)
