"""The number that a text gives as its answer: a small grammar, exact and bounded.

A text is untrusted. Nothing of it is evaluated; digits, exponents, nesting and the length of what is looked at are bounded,
so that a megabyte takes no longer than a line. What cannot be read as one number is none: no wrong number is ever made of
a part of it (5-7, 2x, 3:30, 9,50, x > 5).
"""

import functools
import re
from fractions import Fraction

from maxpo_bench.problems.numerals import (
    CURRENCIES,
    CURRENCY_WORDS,
    END,
    OPENING,
    THOUSANDS_APART,
    VULGAR,
    Number,
    number_at,
    token_at,
    tokenise,
)

MAX_CONTENT = 300  # characters of a marked answer that are read
WINDOW = 160  # characters before the last digit that are read for the last number
MAX_MARKS = 16  # headings that look like marks and hold no answer, before it is given up


def read(text, method="last_number"):
    """The answer in a text, a Number; None when there is none that can be read.

    method: "marked" takes the last of `#### 72`, \\boxed{72} and <answer>72</answer>, wherever it stands; a line `#### Step 2`
    is a heading and no mark. "last_number": that, and in a text without a mark its last number. "boxed": the last \\boxed{}.
    "whole": the text is the answer and nothing else.
    """
    if method in ("last_number", "whole") and _PLAIN.fullmatch(text):
        return Number(Fraction(text.strip().rstrip(".")))
    if method == "whole":
        return _content(text) if len(text) <= MAX_CONTENT else None
    found, answer = _marked(text, ("\\boxed", "\\fbox") if method == "boxed" else _MARKS)
    return _last_number(text) if method == "last_number" and not found else answer


@functools.lru_cache(maxsize=65536)
def read_gold(text):
    """The answer of a data set, more strictly: marked (`#### 72`, \\boxed{72}), or a text with one number in it. Else None."""
    found, answer = _marked(text, _MARKS)
    if found or "####" in text:
        return answer
    if len(text) > MAX_CONTENT or _FACTORIAL.fullmatch(text):
        return None
    only_one = len(_DIGIT_RUNS.findall(text)) == 1
    return _content(text) or (_last_number(text) if only_one else None)


def equal(given, wanted, tolerance=0):
    """Are two Numbers the same, to within `tolerance`? 28% is 28 and 0.28, unless both have a percent sign."""
    differences = [given.value - wanted.value]
    if given.percent != wanted.percent:
        hundredth = Fraction(1, 100)
        differences.append(given.value * hundredth - wanted.value if given.percent else given.value - wanted.value * hundredth)
    return any(abs(difference) <= tolerance for difference in differences)


# ---- where the answer stands

_MARKS = ("####", "\\boxed", "\\fbox", "<answer>")
_PLAIN = re.compile(r"\s{0,20}[-+]?[0-9]{1,40}(?:\.[0-9]{1,40})?\.?\s{0,20}")
_DIGITS = "0123456789" + "".join(VULGAR)
_DIGIT_RUNS = re.compile(rf"[0-9][0-9,.]*|[{_DIGITS}]")
_FACTORIAL = re.compile(r"\W{0,20}[0-9]+!\W{0,20}")  # as an answer of a data set; in a completion "72!" is joy
_HEADING = re.compile(r"[0-9]{1,3}[.)] +[^\W\d_]")


def _marked(text, marks):
    """(was there a mark, the number that the last one marks or None). `####` before something else is a heading, not a mark."""
    last = {mark: text.rfind(mark) for mark in marks}
    for _ in range(MAX_MARKS):
        mark = max(last, key=last.get)
        at = last[mark]
        if at < 0:
            return False, None
        if mark == "####":
            line, _, rest = text[at + 4 : at + 4 + MAX_CONTENT].lstrip().partition("\n")
            answer = _content(line)
            if answer and not (_HEADING.match(line) and rest.strip()):
                return True, answer
        elif mark == "<answer>":
            content = text[at + len(mark) : at + len(mark) + MAX_CONTENT]
            return True, _content(content.partition("</answer>")[0])
        else:
            content = _box(text[at + len(mark) : at + len(mark) + MAX_CONTENT])
            return True, None if content is None else _content(content, boxed=True)
        last[mark] = text.rfind(mark, 0, at)
    return False, None


def _box(text):
    """What the braces at the start of the text hold; without braces the number there. None when they do not close."""
    text = text.lstrip()
    if not text.startswith("{"):
        return re.match(r"[-+]?[0-9.]*", text)[0]
    depth = 0
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[1:at]
    return None


# ---- what may stand beside a number

_UNITS = set("m g L l h s A V K C F N J W t".split())
_UNITS |= set("kg km cm mm nm mg ml mL dL cL cl Hz kW kV mA mV ms ns hr ft in yd lb oz mi pt qt Pa GB MB KB TB kB Wh".split())
_UNITS |= set("st nd rd th am pm AM PM kJ kN dm ha ac mo yr wk".split())
_NOT_UNITS = {"pi", "sqrt", "sin", "cos", "tan", "log", "exp", "mod", "xyz", "abc"}
_VARIABLES = {"x", "y", "z", "pi", "X", "Y", "Z"}
_LEADS = set("is are was be equals equal about approximately roughly around exactly only answer total result value to".split())
_LEADS |= CURRENCY_WORDS
_NEGATIVE = {"minus", "negative"}
_OPERAND_STARTS = {"N", "F", "(", "{"}
_RELATIONS = set("<>≤≥≠")
_OPERATORS = set("×÷^±∓√∞_‰∑∏∫") | _RELATIONS


def _is_unit(word):
    """May these letters touch a number from behind? 18kg and 5th may; 2x, 3ab and 5π may not."""
    if not word.isalpha():
        return False  # digits of other scripts, fractions
    if word.isascii():
        return word in _UNITS or len(word) > 2 and word.lower() not in _NOT_UNITS
    greek = [char for char in word if "\u0370" <= char <= "\u03ff"]
    return not greek or word[0] in "\u00b5\u03bc\u03a9" or len(word) > 2


def _ends_well(tokens, i):
    """May a number end before token i?"""
    token, after = token_at(tokens, i), token_at(tokens, i + 1)
    if token.kind == "W":
        if not token.gap:
            return _is_unit(token.text)
        return token.text not in _VARIABLES and not re.fullmatch("[\u0391-\u03c9]", token.text)
    if token.kind in _OPERATORS:
        return False
    if token.kind in ("C", "F"):
        return False
    if token.kind in ("-", "\u2013", "+"):
        return not (token.kind == "+" or after.kind in _OPERAND_STARTS or after.kind == "C" or after.kind in CURRENCIES) or (
            token.kind == "\u2013" and bool(token.gap) and bool(after.gap)
        )
    if token.kind == "/":
        return after.kind == "W"
    if token.kind in ("(", "{"):
        return bool(token.gap)
    if token.kind in (".", ",", ":"):
        return not (after.kind == "N" and (not after.gap or token.kind == ":"))
    return not (token.kind == "N" and not token.gap)


def _content(text, boxed=False):
    """The number of a short text that is an answer and nothing else: "x = 5", "The answer is 18 kg.". None else."""
    if len(text) > MAX_CONTENT or not _DIGIT_RUNS.search(text):
        return None
    tokens = tokenise(THOUSANDS_APART.sub(lambda m: m[1].replace(" ", ""), text.replace("\\ ", " ")))
    if any(token.kind in _RELATIONS for token in tokens):
        return None
    last = max((i for i, token in enumerate(tokens) if token.kind in ("N", "F")), default=-1)
    equals = [i + 1 for i, token in enumerate(tokens) if token.kind == "=" or token.text in ("is", "equals") and i < last]
    start = max(equals, default=0)
    if any(token.kind in (",", ";") or token.text in ("or", "and") for token in tokens[:start]):
        return None
    i, lead = start, END
    while (found := number_at(tokens, i)) is None:
        token = token_at(tokens, i)
        if token.kind in ("", "N", "C", "F", "-", "\u2013", "+") or token.kind in _OPERATORS:
            return None
        i, lead = i + 1, token
    number, end = found
    if lead.kind == "W":
        touches = not tokens[i].gap
        if lead.text.lower() in _NEGATIVE:
            number = Number(-number.value, number.percent)
        elif touches and lead.text.isascii() and lead.text.lower() not in CURRENCY_WORDS:
            return None
        elif lead.text.isascii() and lead.text.lower() not in _LEADS:
            return None
    elif lead.kind in (")", "]", "}") and not tokens[i].gap:
        return None
    if not _ends_well(tokens, end) or boxed and token_at(tokens, end).kind == "!":
        return None
    return number if _nothing_more(tokens, end) else None


def _nothing_more(tokens, i):
    """No further number in the sentence behind an answer, but for units (m/s^2, H2O) and remarks in brackets."""
    depth = 0
    while i < len(tokens):
        token, before = tokens[i], token_at(tokens, i - 1)
        depth += (token.kind in ("(", "[")) - (token.kind in (")", "]"))
        if depth <= 0 and (token.kind in (".", ";") and token_at(tokens, i + 1).gap):
            return True
        if depth <= 0 and token.kind in ("N", "F", "C"):
            exponent = before.kind in ("^", "_") or before.kind in ("{", "-") and token_at(tokens, i - 2).kind in ("^", "{")
            if not exponent and not (before.kind == "W" and not token.gap):
                return False
        i += 1
    return True


def _last_number(text):
    """The last number of a text without a mark; None when it is part of something that is no number."""
    end = len(text)
    for _ in range(8):
        at = max(text.rfind(digit, 0, end) for digit in _DIGITS)
        if at < 0:
            return None
        start = max(0, at - WINDOW)
        if start:
            start += len(re.match(r"\S*", text[start:at])[0])
            start = start if start < at else max(0, at - WINDOW)
        cut = start > 0 and not text[start].isspace()
        tokens = tokenise(text[start : min(end, at + 1 + WINDOW // 2)])
        answer = _last_of(tokens, cut)
        if answer is not _SKIP:
            return answer
        end = start
    return None


_SKIP = object()


def _last_of(tokens, cut):
    """The last number among tokens, None when it cannot be read, _SKIP when there are parts of names only (CO2)."""
    i, candidates = 0, []
    while i < len(tokens):
        found = number_at(tokens, i)
        if found:
            candidates.append((i, *found))
            i = found[1]
        else:
            if tokens[i].kind == "N":
                candidates.append((i, None, i + 1))
            i += 1
    for i, number, end in reversed(candidates):
        before = token_at(tokens, i - 1)
        if before.kind == "W" and not tokens[i].gap and before.text.isascii() and before.text.lower() not in CURRENCY_WORDS:
            glued = token_at(tokens, i - 2).kind == "N" and not before.gap  # 2h30
            if not glued and (tokens[i].kind == "N" or tokens[i].kind == "-" and len(before.text) > 1):
                continue  # CO2, step3, COVID-19
        if before.kind == "^" and token_at(tokens, i - 2).kind == "W" and _is_unit(token_at(tokens, i - 2).text):
            continue  # cm^2
        if number is None or cut and i == 0 or not _ends_well(tokens, end):
            return None
        return _begins(tokens, i, number)
    return _SKIP


def _begins(tokens, i, number):
    """The number at token i with its sign as what stands before says; None when that makes it part of something else."""
    before, further, first = token_at(tokens, i - 1), token_at(tokens, i - 2), tokens[i]
    line_starts = i == 0 or "\n" in first.gap
    operand = before.kind in ("N", ")", "]", "}", "%", "°") or before.kind == "W" and len(before.text) == 1
    if first.kind in ("-", "+", "\u2013") and not line_starts and operand:
        return None
    if first.kind == "-" and token_at(tokens, i + 1).gap:  # a sign, a bullet or a dash
        if line_starts and i > 0:
            return Number(-number.value, number.percent)
        if i == 0 or before.kind in ("=", ":", "(", "{", "[") or before.text.lower() in _LEADS:
            return number
        return None
    if line_starts:
        return number
    if before.kind == "W":
        if not first.gap and further.kind == "N" and not before.gap:
            return None
        if before.text.lower() in _NEGATIVE:
            return None if further.kind == "N" else Number(-number.value, number.percent)
        if not first.gap and first.kind in ("(", "{"):
            return None
        return None if before.text.lower() in ("plus", "times") else number
    if before.kind in _OPERATORS or before.kind in ("C", "F", "/", "+", "-"):
        return None
    if before.kind in (",", ".", ":") and further.kind == "N" and not before.gap and not first.gap:
        return None
    if before.kind == ":" and further.kind == "N":
        return None
    if before.kind in (")", "]", "}") and not first.gap:  # a factor, or the end of a wrapper
        factor = further.kind in ("N", ")", "]", "}") or further.kind == "W" and len(further.text) == 1
        return None if factor or first.kind in OPENING else number
    if before.kind == "N" and len(before.text) <= 3 and re.match("[0-9]{3}(?![0-9])", first.text):  # 9 500
        return None
    return number
