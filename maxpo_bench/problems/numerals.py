"""Numbers as they are written, in Markdown, LaTeX or plain: characters to tokens, tokens to an exact fraction.

    number   = [sign] [currency] amount ["/" amount] ["x 10^" integer] ["thousand" ...] ["%"]
    amount   = digits ["^" integer] | integer fraction | fraction | "(" number ")" | "{" number "}"
    fraction = \\frac{number}{number} | \\frac12 | 1/2
    digits   = 72 | 1,234.5 | 9{,}500 | .5 | 1.5e-3

Nothing is evaluated but products of this kind; digits, exponents and nesting are bounded.
"""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_DIGITS = 60  # of a number as written
MAX_EXPONENT = 400  # powers of ten, and digits of a power
MAX_NESTING = 4


class Number(NamedTuple):
    """What was read. percent: it had a percent sign, so that it may mean value or value / 100."""

    value: Fraction
    percent: bool = False


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
VULGAR = {"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3", "⅕": " 1/5", "⅛": " 1/8", "⅜": " 3/8", "⅝": " 5/8"}
_CHARACTERS = {
    **dict.fromkeys("\u2212\u2010\u2011\ufe63\uff0d", "-"),  # minus, hyphens, small and fullwidth ones
    **dict.fromkeys("\u2013\u2014\u2015", "\u2013"),  # dashes: a sign when they touch a number and nothing before
    **dict.fromkeys("\u2009\u202f\u00a0\u2007", "\u202f"),  # narrow and unbreakable spaces: between thousands
    **dict.fromkeys("~\u200a\u2002\u2003\u3000\t`", " "),
    **dict.fromkeys("·⋅∙∗✕", "×"),
    **dict.fromkeys("≈≃≅→⇒＝", "="),
    **dict.fromkeys("⁄∕", "/"),
    **dict.fromkeys("\u2018\u2019", "'"),
    **{"％": "%", "＋": "+", "：": ":", "（": "(", "）": ")", "。": ".", "，": ", ", "＄": "$"},
    **VULGAR,
}  # fmt: skip
_CHARACTERS = str.maketrans(_CHARACTERS)
_COMMANDS = {
    **dict.fromkeys(["dfrac", "tfrac", "cfrac", "frac"], "\\frac"),
    **dict.fromkeys("text textbf textit textrm textsf texttt mathrm mathbf mathit mathsf mbox operatorname bm".split(), " "),
    **dict.fromkeys("boldsymbol underline emph displaystyle quad qquad newline ldots dots cdots checkmark".split(), " "),
    **dict.fromkeys("square blacksquare Box qed begin end therefore because hline hfill cents".split(), " "),
    **dict.fromkeys(["thinspace", ","], "\u202f"),
    **dict.fromkeys([";", ":", " ", "\\", "(", ")", "[", "]", "\n"], " "),
    **dict.fromkeys(["!", "left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr"], ""),
    **dict.fromkeys(["times", "cdot", "ast"], "×"),
    **dict.fromkeys(["approx", "simeq", "cong", "implies", "Rightarrow", "to", "rightarrow", "iff", "Longrightarrow"], "="),
    **dict.fromkeys(["circ", "degree"], "°"),
    **{"$": "$", "textdollar": "$", "%": "%", "div": "÷", "euro": "€", "pounds": "£", "{": "(", "}": ")"},
}  # fmt: skip
_COMMAND = re.compile(r"\\([a-zA-Z]{1,20}|[^a-zA-Z])")
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]{0,11} ?/?>|<\|[^|<>]{1,40}\|>")
_STARS = re.compile(r"(.?)( ?)(\*+)( ?)(?=(\.?.?))", re.DOTALL)
_UNDERLINES = re.compile(r"__|(?<![A-Za-z0-9}])_|_(?![A-Za-z0-9{])")
_SUPERSCRIPT = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,9}")
_TOKEN = re.compile(
    r"(?P<gap>\s*)(?:"
    r"(?P<N>(?:[0-9]{1,3}(?:,[0-9]{3}){1,20}|[0-9]{1,3}(?:['\u202f][0-9]{3}){1,20}|[0-9]{1,2}(?:,[0-9]{2}){1,20},[0-9]{3}|[0-9]+)"
    r"(?![0-9])(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,4}(?![0-9]))?"
    r"|(?<![A-Za-z0-9)\]}])\.[0-9]+(?:[eE][-+]?[0-9]{1,4}(?![0-9]))?)"
    r"|(?P<F>\\frac)|(?P<C>\\[a-zA-Z]+)|(?P<W>[^\W0-9_]+)|(?P<O>\S))"
)
THOUSANDS_APART = re.compile(r"(?<![0-9.,] )(?<![0-9.,])([0-9]{1,3}(?: [0-9]{3}){1,12})(?![0-9]| [0-9])")


class Token(NamedTuple):
    """kind: N number, W letters, F \\frac, C another command; a character is its own kind. gap: the space before."""

    kind: str
    text: str
    gap: str


END = Token("", "", " ")


def tokenise(text):
    """Tokens of a short text, its LaTeX spacing, wrappers and markup read over."""
    text = text.translate(_CHARACTERS)
    if "\\" in text:
        text = _COMMAND.sub(lambda m: _COMMANDS.get(m[1], m[0]), text.replace("{,}", ",")).replace("^{°}", "°").replace("^°", "°")
    elif "{,}" in text:
        text = text.replace("{,}", ",")
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "*" in text:
        text = _STARS.sub(_star, text)
    if "_" in text:
        text = _UNDERLINES.sub(" ", text)
    text = _SUPERSCRIPT.sub(lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    return [Token(m["O"] or m.lastgroup, m[m.lastgroup], m["gap"]) for m in _TOKEN.finditer(text)]


def _star(match):
    """A star between two operands multiplies; any other is bold, italic or a bullet."""
    before, left, stars, right, after = match.groups()
    after = after[1:] if after.startswith(".") else after[:1]
    if len(stars) > 1:
        operands = before.isdigit() and after.isdigit()
    else:
        operands = (before.isalnum() or before in tuple(")}%")) and (after.isalnum() or after in tuple("({-$\\"))
    if operands and bool(left) == bool(right):
        return f"{before} × "
    return before + ("" if before in tuple("-+$€£") else " ")


# ---- the grammar

CURRENCIES = set("$€£¥₹₩₽")
CURRENCY_WORDS = {"usd", "eur", "gbp", "inr", "cad", "aud", "us", "rs", "hk", "nz", "a", "c", "cny", "rmb", "jpy"}
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "k": 3}
_MONEY_SCALES = {"K": 3, "M": 6, "m": 6, "mn": 6, "B": 9, "b": 9, "bn": 9}
OPENING = {"(": ")", "{": "}"}


def token_at(tokens, i):
    return tokens[i] if 0 <= i < len(tokens) else END


def number_at(tokens, i, nesting=0):
    """The number that begins at token i: (Number, index behind it); None when none does."""
    negative = money = signed = False
    while (token := token_at(tokens, i)).kind in "-+\u2013" and token.kind or token.kind in CURRENCIES:
        if token.kind in CURRENCIES:
            money = True
        elif signed or token.kind == "\u2013" and token_at(tokens, i + 1).gap:
            return None
        else:
            signed, negative = True, token.kind != "+"
        i += 1
    found = _amount(tokens, i, nesting)
    if found is None:
        return None
    value, i = found
    if token_at(tokens, i).kind == "/" and (token_at(tokens, i + 1).kind in ("N", "F", "(", "{", "-")):
        minus = token_at(tokens, i + 1).kind == "-"
        found = _amount(tokens, i + 1 + minus, nesting)
        if found is None or found[0] == 0:
            return None
        value, i = (-value if minus else value) / found[0], found[1]
    if [token_at(tokens, i + j).text for j in range(3)] in (["×", "10", "^"], ["x", "10", "^"], ["X", "10", "^"]):
        found = _amount(tokens, i + 1, nesting)
        if found is None:
            return None
        value, i = value * found[0], found[1]
    word = token_at(tokens, i)
    if word.kind == "W":
        scale = _SCALES.get(word.text if len(word.text) == 1 else word.text.lower())
        if scale is None and money:
            scale = _MONEY_SCALES.get(word.text)
        if scale is not None and not (word.text == "k" and word.gap):
            value, i = value * 10**scale, i + 1
        elif word.text.lower() == "dozen":
            value, i = value * 12, i + 1
    percent = token_at(tokens, i).kind == "%" or token_at(tokens, i).text.lower() in ("percent", "pct")
    return Number(-value if negative else value, percent), i + percent


def _amount(tokens, i, nesting):
    """An unsigned number, a power or a bracket at token i: (Fraction, index behind it); None when there is none."""
    token = token_at(tokens, i)
    if token.kind == "N":
        value, i = _digits(token.text), i + 1
        if value is None:
            return None
        fraction = None  # a mixed number: 1 1/2, 1\frac{1}{2}
        if token_at(tokens, i).kind == "F":
            fraction = _fraction(tokens, i, nesting)
            if fraction is None:
                return None
        elif token_at(tokens, i).kind == "N" and token_at(tokens, i + 1).kind == "/" and token_at(tokens, i + 2).kind == "N":
            top, bottom = _digits(token_at(tokens, i).text), _digits(token_at(tokens, i + 2).text)
            if top and bottom and top < bottom:
                fraction = top / bottom, i + 3
        if fraction:
            return (value + fraction[0], fraction[1]) if value.denominator == 1 and 0 < fraction[0] < 1 else None
        if token_at(tokens, i).kind == "^":
            return _power(value, len(token.text), tokens, i + 1)
        return value, i
    if token.kind == "F":
        return _fraction(tokens, i, nesting)
    if token.kind in OPENING:
        return _bracket(tokens, i, nesting)
    return None


def _bracket(tokens, i, nesting):
    found = number_at(tokens, i + 1, nesting + 1) if nesting < MAX_NESTING else None
    if found is None or found[0].percent or token_at(tokens, found[1]).kind != OPENING[tokens[i].kind]:
        return None
    return found[0].value, found[1] + 1


def _fraction(tokens, i, nesting):
    """\\frac{a}{b}, \\frac12 and what lies between."""
    parts, i, rest = [], i + 1, ""
    for _ in range(2):
        token = token_at(tokens, i)
        if rest or token.kind == "N":  # one digit is one argument
            digits = rest or token.text
            if not digits.isdigit() or len(digits) > 2:
                return None
            found, rest, i = Fraction(int(digits[0])), digits[1:], i + (not rest)
        elif token.kind == "{":
            bracket = _bracket(tokens, i, nesting)
            if bracket is None:
                return None
            found, i = bracket
        else:
            return None
        parts.append(found)
    if rest or parts[1] == 0:
        return None
    return parts[0] / parts[1], i


def _power(base, num_digits, tokens, i):
    """base ^ integer, the integer bare or in brackets."""
    closing = OPENING.get(token_at(tokens, i).kind)
    i += closing is not None
    minus = token_at(tokens, i).kind == "-"
    i += minus
    digits = token_at(tokens, i).text
    if not re.fullmatch("[0-9]{1,3}", digits) or int(digits) * num_digits > MAX_EXPONENT or base == 0:
        return None
    i += 1
    if closing:
        if token_at(tokens, i).kind != closing:
            return None
        i += 1
    return base ** (-int(digits) if minus else int(digits)), i


def _digits(text):
    mantissa, _, exponent = text.lower().partition("e")
    mantissa = re.sub("[,'\u202f]", "", mantissa)
    if len(mantissa) > MAX_DIGITS or abs(int(exponent or 0)) > MAX_EXPONENT:
        return None
    return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)
