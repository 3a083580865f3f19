"""The tokenizer: byte-level BPE, so that any text encodes and decodes without loss."""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from extraction_assets.demo.training.documents import SPECIAL_TOKEN, Document

VOCABULARY_SIZE = 4_096


def train_tokenizer(texts: list[str], context_length: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE of 4,096 tokens, of which 256 are the bytes and one is BOS, EOS and padding."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[SPECIAL_TOKEN],  # first, and so id 0
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # bytes that the training text lacks, too
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=SPECIAL_TOKEN,
        eos_token=SPECIAL_TOKEN,
        pad_token=SPECIAL_TOKEN,
        model_max_length=context_length,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, naming a class that every transformers knows."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    # transformers 5 has renamed the class, but loads the old name; transformers 4 knows the old one alone.
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": False}
    settings.pop("backend", None)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def tokenize(tokenizer: PreTrainedTokenizerFast, documents: list[Document]) -> list[np.ndarray]:
    """Each document's token ids ([tokens] int64), without special tokens."""
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(
        [document.text for document in documents], add_special_tokens=False
    )
    return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
