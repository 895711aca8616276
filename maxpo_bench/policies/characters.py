"""A tokenizer with one token per character, as a real `transformers` fast tokenizer."""

PAD, EOS, UNKNOWN = "<pad>", "$", "<unk>"


def tokenizer(alphabet):
    """PreTrainedTokenizerFast over the alphabet's characters; "$" ends a text. Pads on the left."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNKNOWN, *dict.fromkeys(alphabet)])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, padding_side="left", bos_token=None
    )
