"""A tokenizer with one token per character, as a real `transformers` fast tokenizer."""

PAD, EOS, UNKNOWN = "<pad>", "$", "<unk>"
EOS_BESIDE_DOLLARS = "<eos>"


def tokenizer(alphabet):
    """PreTrainedTokenizerFast over the alphabet's characters. Pads on the left.

    "$" ends a text, "<eos>" where "$" is a character of the alphabet.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    eos = EOS_BESIDE_DOLLARS if EOS in alphabet else EOS
    vocabulary = {token: i for i, token in enumerate([PAD, eos, UNKNOWN, *dict.fromkeys(alphabet)])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=PAD, eos_token=eos, unk_token=UNKNOWN, padding_side="left", bos_token=None
    )
